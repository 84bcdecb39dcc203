import io
import json
import pickle

import numpy as np
import pytest
from PIL import Image

from mmllm.data import sources
from mmllm.data.corpora import build


def test_examples_are_read_as_arrays_and_text(toy):
    build.build(["toy"], progress=lambda line: None)
    corpus = sources.load("toy", "train")
    assert len(corpus) == 5
    by_id = {example["id"]: example for example in corpus}
    example = by_id["train/3"]
    np.testing.assert_array_equal(example["image"], np.full((160, 160, 4), 35, np.uint8))
    assert example["languages"] == ["en", "de"]
    assert example["captions"] == ["a square 3", "ein Viereck «3»"]
    assert example["keywords"] == "flat|grey"
    assert example["licence"] == "MIT"
    assert pickle.loads(pickle.dumps(corpus))[1]["id"] == corpus[1]["id"]
    assert "image" not in sources.load("toy", "train", images=False)[0]


def test_a_corpus_that_is_not_built_says_how_to_build_it():
    with pytest.raises(FileNotFoundError, match="run `mmllm data build emoji`"):
        sources.load("emoji", "train")


def test_an_unknown_split_is_refused_by_name(toy):
    build.build(["toy"], progress=lambda line: None)
    with pytest.raises(ValueError, match="no split 'test'; it has: train, style_out"):
        sources.load("toy", "test")


@pytest.mark.parametrize(("channels", "shape"), [(1, (4, 6, 1)), (3, (4, 6, 3)), (4, (4, 6, 4))])
def test_a_picture_is_decoded_with_the_channels_of_its_feature(channels, shape):
    buffer = io.BytesIO()
    Image.new("RGBA", (6, 4), (10, 20, 30, 255)).save(buffer, format="PNG")
    assert sources.decode_image(buffer.getvalue(), channels).shape == shape


def test_the_newest_build_is_read(monkeypatch, tmp_path):
    monkeypatch.setenv("MMLLM_DATA", str(tmp_path))
    for version in ("1.9.0", "1.10.0", "1.11.0"):
        folder = tmp_path / "tfds" / "toy" / version
        folder.mkdir(parents=True)
        if version != "1.11.0":  # that one was interrupted
            (folder / sources.DATA_HASH_FILE).write_text(json.dumps({"hash": version}))
    assert sources.data_hash("toy") == "1.10.0"

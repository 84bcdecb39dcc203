"""The teacher equals a naive BERT and gives the numbers its authors published."""

import math

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from mmllm.common import paths
from mmllm.data import packages, pretrained
from mmllm.train.text import teacher

# float32 against float64 through six random layers
TOLERANCE = 1e-5
# Source: the README of sentence-transformers prints four decimals.
PRINTED_DECIMALS = 1e-4
WIDTH, MLP = 24, 48
WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "red", "bus", "blue", "cat"]


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    """Returns a small random BERT under the names of the real one."""
    rng = np.random.default_rng(0)
    tensors = {}

    def norm(name):
        tensors[f"{name}.weight"] = rng.uniform(0.5, 1.5, WIDTH)
        tensors[f"{name}.bias"] = rng.normal(0, 0.2, WIDTH)

    def dense(name, outputs, inputs):
        tensors[f"{name}.weight"] = rng.normal(0, inputs**-0.5, (outputs, inputs))
        tensors[f"{name}.bias"] = rng.normal(0, 0.2, outputs)

    for name, rows in (("word", len(WORDS)), ("position", 512), ("token_type", 2)):
        tensors[f"embeddings.{name}_embeddings.weight"] = rng.normal(0, 1, (rows, WIDTH))
    norm("embeddings.LayerNorm")
    for index in range(teacher.LAYERS):
        layer = f"encoder.layer.{index}"
        for head in ("query", "key", "value"):
            dense(f"{layer}.attention.self.{head}", WIDTH, WIDTH)
        dense(f"{layer}.attention.output.dense", WIDTH, WIDTH)
        norm(f"{layer}.attention.output.LayerNorm")
        dense(f"{layer}.intermediate.dense", MLP, WIDTH)
        dense(f"{layer}.output.dense", WIDTH, MLP)
        norm(f"{layer}.output.LayerNorm")
    return {name: value.astype(np.float32) for name, value in tensors.items()}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    vocabulary = {word: index for index, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    return tokenizer


@pytest.fixture(scope="module")
def small(weights, tokenizer) -> teacher.SentenceTeacher:
    return teacher.SentenceTeacher(teacher.convert_weights(weights), tokenizer)


def naive(weights, ids: list[int]) -> np.ndarray:
    """BERT on one text without padding: one head and one position at a time, in float64."""
    w = {name: value.astype(np.float64) for name, value in weights.items()}

    def dense(name, x):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(name, x):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
        return x * w[f"{name}.weight"] + w[f"{name}.bias"]

    x = w["embeddings.word_embeddings.weight"][ids]
    x = x + w["embeddings.position_embeddings.weight"][: len(ids)]
    x = norm("embeddings.LayerNorm", x + w["embeddings.token_type_embeddings.weight"][0])
    size = WIDTH // 12
    for index in range(6):
        layer = f"encoder.layer.{index}"
        heads = f"{layer}.attention.self"
        query, key, value = (dense(f"{heads}.{part}", x) for part in ("query", "key", "value"))
        mixed = np.zeros_like(x)
        for start in range(0, WIDTH, size):
            part = slice(start, start + size)
            for row in range(len(ids)):
                scores = np.exp(key[:, part] @ query[row, part] / math.sqrt(size))
                mixed[row, part] = scores / scores.sum() @ value[:, part]
        mixed = dense(f"{layer}.attention.output.dense", mixed)
        x = norm(f"{layer}.attention.output.LayerNorm", x + mixed)
        hidden = dense(f"{layer}.intermediate.dense", x)
        hidden = hidden * 0.5 * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2)))
        x = norm(f"{layer}.output.LayerNorm", x + dense(f"{layer}.output.dense", hidden))
    pooled = x.mean(0)
    return pooled / np.linalg.norm(pooled)


def test_vectors_equal_a_naive_bert_whatever_the_padding(small, weights):
    texts = ["red bus", "blue cat red cat bus blue red bus cat", "", "nothing known"]
    ids = [[1, 4, 5, 2], [1, 6, 7, 4, 7, 5, 6, 4, 5, 7, 2], [1, 2], [1, 3, 3, 2]]
    expected = np.stack([naive(weights, row) for row in ids])
    result = small.embed(texts, batch=3)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, atol=TOLERANCE, rtol=0)


def test_order_is_kept_and_what_exceeds_the_limit_is_cut(small):
    long = " ".join(["red", "bus"] * 200)
    vectors = small.embed([long, "cat", long + " cat", "cat"], batch=3)
    np.testing.assert_allclose(vectors[0], vectors[2], atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(vectors[1], vectors[3], atol=TOLERANCE, rtol=0)
    assert np.abs(vectors[0] - vectors[1]).max() > 0.01


def test_no_text_gives_no_vectors(small):
    assert small.embed([]).shape == (0, WIDTH)


def test_bad_arguments_are_named(small, weights):
    with pytest.raises(TypeError, match="texts must be a list of strings"):
        small.embed("red bus")
    with pytest.raises(ValueError, match="batch must be at least 1, got 0"):
        small.embed(["red bus"], 0)
    without = {k: v for k, v in weights.items() if "layer.5.output.dense.bias" not in k}
    with pytest.raises(ValueError, match=r"encoder\.layer\.5\.output\.dense\.bias"):
        teacher.convert_weights(without)


@pytest.mark.real_cache
def test_the_real_teacher_gives_the_published_similarities():
    folder = packages.PACKAGES[pretrained.MINILM.package].folder
    if not (paths.data_dir() / "packages" / folder).is_dir():
        pytest.skip("all-MiniLM-L6-v2 is not in the data cache; training fetches it")
    texts = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
    vectors = teacher.SentenceTeacher.load().embed(texts)
    # Source: sentence-transformers, README (cosine) and usage guide (Manhattan).
    cosine = [[1.0000, 0.6660, 0.1046], [0.6660, 1.0000, 0.1411], [0.1046, 0.1411, 1.0000]]
    manhattan = [[0, 12.6269, 20.2167], [12.6269, 0, 20.1288], [20.2167, 20.1288, 0]]
    np.testing.assert_allclose(vectors @ vectors.T, cosine, atol=PRINTED_DECIMALS, rtol=0)
    distances = np.abs(vectors[:, None] - vectors[None]).sum(-1)
    np.testing.assert_allclose(distances, manhattan, atol=PRINTED_DECIMALS, rtol=0)

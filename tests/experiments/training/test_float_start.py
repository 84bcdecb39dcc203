"""The float bundle of the experiments is the model that configs/nano.py trains."""

import json

from configs import nano
from experiments.training import float_start
from mmllm import bundle
from mmllm.common import config as config_lib
from mmllm.runtime import model
from mmllm.train import checkpoint

CONFIG = config_lib.resolve(nano.get_config())


def test_its_bundle_has_the_model_of_nano_and_the_vocabulary_of_what_ships():
    manifest, config = bundle.open_verified(float_start.BUNDLE)
    assert config == CONFIG.model
    assert not manifest["quantized"]
    shipped = bundle.read_manifest(model.locate("nano"))
    assert manifest["files"][bundle.TOKENIZER] == shipped["files"][bundle.TOKENIZER]


def test_a_run_that_was_trained_here_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("MMLLM_DATA", str(tmp_path))
    monkeypatch.setattr(
        float_start.regain_lib, "regain", lambda source, config, workdir: [source, workdir]
    )
    workdir = tmp_path / "runs" / "nano"
    assert float_start.regain() == [float_start.BUNDLE, workdir]
    (workdir / checkpoint.FOLDER / "40").mkdir(parents=True)
    (workdir / "config.json").write_text(json.dumps(config_lib.to_dict(CONFIG)))
    assert float_start.regain() == workdir

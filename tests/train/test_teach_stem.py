"""The stem's tail is taught its grids: nearer to the float cells than rounding, and resumable."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmllm.data import pretrained
from mmllm.quant import tree
from mmllm.train import checkpoint, frozen_stem, stages, teach_stem, tune_stem
from tests import tiny_run, tiny_stem

RULES = (
    r"stem/block_15/(expand|project)/kernel int2",
    r"stem/.* float",
    r"embed/table int8",
)


def ruled(steps: int, *rules: str):
    base = tiny_run.CONFIG
    return dataclasses.replace(
        base,
        model=dataclasses.replace(base.model, stem="efficientnet_lite0", image_side=224),
        tune=dataclasses.replace(base.tune, batch=2),
        quant=dataclasses.replace(base.quant, start="tiny", rules=rules, stem_steps=steps),
    )


@pytest.fixture(scope="module")
def stem():
    weights = tiny_stem.random_weights(np.random.default_rng(0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrained, "efficientnet_lite0_weights", lambda: weights)
        return frozen_stem.pretrained(ruled(0, *RULES))


@pytest.fixture
def trunks():
    rng = np.random.default_rng(1)
    return [[rng.standard_normal((3, 14, 14, 112)).astype(np.float16)] * 2]


def distance(config, stem, taught, trunk):
    """Root mean square of what rounding does to the cells."""
    tail, rules = tune_stem.tail(), frozen_stem.coarse(config)
    wanted = tail.apply({"params": tune_stem.split_stem(stem)[1]}, jnp.float32(trunk))
    held = jax.tree.map(jnp.asarray, taught)
    rounded = tree.fake_quantize({"stem": held["tail"]}, held["scales"], rules)
    got = tail.apply({"params": rounded["stem"]}, jnp.float32(trunk))
    return float(np.sqrt(np.mean(np.square(got - wanted))))


@pytest.mark.slow
def test_taught_cells_are_nearer_and_an_interruption_changes_nothing(
    stem, trunks, tmp_path, monkeypatch
):
    monkeypatch.setattr(tune_stem, "CHECKPOINT_EVERY", 20)
    monkeypatch.setattr(stages, "data_seed", lambda config: 0)  # there is no run it starts from
    config = ruled(40, *RULES)
    said: list[str] = []
    taught = teach_stem.teach(config, stem, trunks, tmp_path / "whole", said.append)
    assert said[-1].startswith("rounded stem: step 40/40")
    rules = frozen_stem.coarse(config)
    plain = {
        "tail": tune_stem.split_stem(stem)[1],
        "scales": tree.init_scales({"stem": stem}, rules),
    }
    before, after = (distance(config, stem, each, trunks[0][0]) for each in (plain, taught))
    assert after < 0.8 * before

    save = checkpoint.Checkpoints.save

    def save_and_die(self, state, iterator):
        save(self, state, iterator)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.Checkpoints, "save", save_and_die)
        with pytest.raises(KeyboardInterrupt):
            teach_stem.teach(config, stem, trunks, tmp_path / "cut", lambda line: None)
    again = teach_stem.teach(config, stem, trunks, tmp_path / "cut", lambda line: None)
    jax.tree.map(np.testing.assert_array_equal, taught, again)


@pytest.mark.parametrize(
    ("rules", "named"),
    [
        (RULES[1:], "no weight of the stem"),
        ((r"stem/block_3/expand/kernel int4", *RULES), "stem/block_3/expand/kernel"),
    ],
)
def test_weights_that_it_cannot_teach_are_refused(stem, trunks, tmp_path, rules, named):
    with pytest.raises(ValueError, match=f"but quant.rules put {named} there"):
        teach_stem.teach(ruled(5, *rules), stem, trunks, tmp_path)

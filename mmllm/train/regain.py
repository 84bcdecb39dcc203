"""Bundle -> training run: a finished float run regained from what it shipped, to start students.

A bundle holds the model and its backbone. What it lacks of a run is the caption prototypes, which is a part
of training only; a prototypes is fitted to the pictures' embeddings and to the text tower, both as they
are: it was the other way round that they were trained.
"""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from mmllm import bundle as bundle_lib
from mmllm.common import tensors
from mmllm.common.config import Config
from mmllm.common.types import Params
from mmllm.data import pipeline
from mmllm.train import align_text, cache, checkpoint, fit_prototypes, loop, tune_backbone
from mmllm.train import backbone as backbone_lib
from mmllm.train import state as state_lib

Report = Callable[[str], None]


def regain(source: Path, config: Config, workdir: Path, report: Report = print) -> Path:
    """Writes the run that a float bundle came from, less its optimizer's memory.

    Args:
      source: a bundle without quantized weights.
      config: of the run, see configs/nano.py; its corpora must be built, and its cache is prepared.
      workdir: the run's folder; one that is whole already is left as it is.
      report: takes the progress lines.

    Returns:
      `workdir`.

    Raises:
      FileNotFoundError: no bundle, or a corpus that has not been built.
      ValueError: a quantized bundle, one of another model, vocabulary or backbone, or a folder with
        another run.
    """
    bundle = bundle_lib.load(source)
    if bundle.coded:
        raise ValueError(f"{source} is a quantized bundle; a run is regained from a float one")
    if bundle.config != config.model:
        raise ValueError(f"the bundle {source} has another model than the config {config.name!r}")
    loop.claim(workdir, config)
    if checkpoint.latest_step(workdir / checkpoint.FOLDER) == config.train.steps:
        return workdir
    cache.claim(config, workdir)
    params = {name: part for name, part in bundle.params.items() if name != "backbone"}
    folder = cache.prepare(config, report, tuned=tuned_blocks(config, bundle))
    if (folder / cache.TOKENIZER).read_bytes() != bundle.tokenizer_path.read_bytes():
        raise ValueError(f"the corpora give another vocabulary than {source} has: other versions?")
    cache.keep_files(config, folder, workdir)
    arrays = cache.open_arrays(config, folder)
    start = {"model": params, "prototypes": fit_prototypes.fit(config, params, arrays, report)}
    if config.align.steps:
        tower = {"model": {align_text.PART: params[align_text.PART]}, "scales": {}}
        tensors.write(workdir / align_text.TOWER, tower)
    state = state_lib.init_state(config, len(arrays.texts.prototype_sentences), start)
    checkpoints = checkpoint.Checkpoints(workdir, keep=1)
    try:
        finished = state.replace(step=jnp.int32(config.train.steps))
        checkpoints.save(finished, pipeline.batches(config, arrays))
    finally:
        checkpoints.close()
    return workdir


def tuned_blocks(config: Config, bundle: bundle_lib.Bundle) -> Params | None:
    """The part of a bundle's backbone that was tuned, if there is one.

    Raises:
      ValueError: the rest is not as it was pretrained.
    """
    if config.model.backbone == "patch":
        return None
    untuned = backbone_lib.pretrained(config)
    kept, trainable = tune_backbone.split_backbone(bundle.params["backbone"])
    expected = tune_backbone.split_backbone(untuned)[0] if config.tune.steps else untuned
    held = kept if config.tune.steps else bundle.params["backbone"]
    apart = jax.tree.map(lambda a, b: bool(np.any(np.float16(a) != np.float16(b))), held, expected)
    if any(jax.tree.leaves(apart)):
        raise ValueError(f"the backbone of {bundle.folder} is not the one that the config tunes")
    return trainable if config.tune.steps else None

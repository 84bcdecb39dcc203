"""Bundle -> training run: a finished float run regained from what it shipped, to start students.

A bundle holds the model and its backbone. What it lacks of a run are the caption prototypes, which
are a part of training only; prototypes are fitted to the pictures' embeddings and to the text
tower, both as they are: it was the other way round that they were trained.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from mmllm import bundle as bundle_lib
from mmllm.common import tensors
from mmllm.common.config import Config
from mmllm.common.types import Params
from mmllm.data import pipeline as data_pipeline
from mmllm.data import vocabulary
from mmllm.train import checkpoint, optimizer, pipeline
from mmllm.train import run as run_lib
from mmllm.train import state as state_lib
from mmllm.train.backbone import blocks as backbone_lib
from mmllm.train.phases import align_text, cache_features, fit_prototypes, prepare
from mmllm.train.run import Run
from mmllm.train.text import vocabulary as vocabulary_lib


def regain(source: Path, config: Config, workdir: Path, report: run_lib.Report = print) -> Path:
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
    run_lib.claim(workdir, config)
    if checkpoint.latest_step(workdir / checkpoint.FOLDER) == config.train.steps:
        return workdir
    # Before anything is tokenised: the model's ids are those of the vocabulary it shipped with.
    vocabulary.install(vocabulary_lib.name_of(config), bundle.tokenizer_path)
    prepare.claim(config, workdir, report)
    run = Run(config=config, workdir=workdir, report=report, tuned=tuned_blocks(config, bundle))
    pipeline.prepare_only(run)
    tables, arrays = run.tables, run.arrays
    assert tables is not None
    assert arrays is not None
    prepare.keep_files(config, workdir)
    cache_features.keep_blocks(config, tables, workdir)
    params = {name: part for name, part in bundle.params.items() if name != "backbone"}
    prototypes = fit_prototypes.fit_prototypes(config, params, arrays, report)
    if config.align.steps:  # as it shipped, it is aligned
        tower = {"model": {align_text.PART: params[align_text.PART]}, "scales": {}}
        tensors.write(run.tower, tower)
    start = {"model": params, "prototypes": prototypes}
    joined = state_lib.init_params(config, len(arrays.texts.prototype_sentences), start)
    state = state_lib.fresh(joined, optimizer.make(config.train))
    checkpoints = checkpoint.Checkpoints(workdir, keep=1)
    try:
        finished = state.replace(step=jnp.int32(config.train.steps))
        checkpoints.save(finished, data_pipeline.batches(config, arrays))
    finally:
        checkpoints.close()
    run.trained = True
    pipeline.finish(run)
    return workdir


def tuned_blocks(config: Config, bundle: bundle_lib.Bundle) -> Params | None:
    """The part of a bundle's backbone that was tuned, if there is one.

    Raises:
      ValueError: the rest is not as it was pretrained.
    """
    if config.model.backbone == "patch":
        return None
    untuned = backbone_lib.pretrained(config)
    frozen, blocks = backbone_lib.split(bundle.params["backbone"])
    expected = backbone_lib.split(untuned)[0] if config.tune.steps else untuned
    shipped = frozen if config.tune.steps else bundle.params["backbone"]
    differs = jax.tree.map(
        lambda a, b: bool(np.any(np.float16(a) != np.float16(b))), shipped, expected
    )
    if any(jax.tree.leaves(differs)):
        raise ValueError(f"the backbone of {bundle.folder} is not the one that the config tunes")
    return blocks if config.tune.steps else None

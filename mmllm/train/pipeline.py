"""A training run from end to end: the phases, in order.

Each phase is a module of `train.phases` with `run(run)`; its docstring says what it reads and what
it leaves. One whose work is there already does nothing, so that an interrupted run goes on where it
stopped.

A field of the config acts where its section's phase is: `tune` in tune_backbone,
`quant.reconstruction` in quantize_backbone, `train`, `mix`, `loss` and the rest of `quant` in
multitask, `align` in align_text; from there on the way leads down, to `fit` and `step`, and from
`step` to `losses`.
"""

from mmllm.common import provenance
from mmllm.data import synthetic
from mmllm.train import run as run_lib
from mmllm.train.backbone import feature_cache
from mmllm.train.phases import (
    align_text,
    cache_features,
    multitask,
    prepare,
    quantize_backbone,
    tune_backbone,
)
from mmllm.train.run import Run
from mmllm.train.student import plan, start

# quantize_backbone stands before cache_features: a student trains on the features of its rounded
# backbone.
PREPARING = (prepare, tune_backbone, quantize_backbone, cache_features)
TRAINING = (multitask, align_text)
PHASES = (*PREPARING, *TRAINING)


def train(run: Run) -> None:
    """Goes through all phases.

    Raises:
      FileNotFoundError: a corpus that has not been built, or no run that `quant.start` names.
      FloatingPointError: a loss that is not finite.
      KeyboardInterrupt: Ctrl-C; its message names the step and the checkpoint that stands.
      OSError: the disk is full.
      ValueError: a config that cannot work, or a folder of another run.
    """
    check(run)
    prepare.check(run.config)
    run_lib.claim(run.workdir, run.config)
    prepare.claim(run.config, run.workdir, run.report)  # before anything is computed
    feature_cache.claim(run.config, prepare.cache_folder(run.config), run.workdir)
    prepare_only(run)
    for phase in TRAINING:
        phase.run(run)
    finish(run)


def prepare_only(run: Run) -> None:
    """Goes through the phases up to `run.arrays`; the run's own folder is not touched."""
    quantize_backbone.check(run.config)
    for phase in PREPARING:
        phase.run(run)


def train_synthetic(run: Run) -> None:
    """Trains on small generated arrays, for smoke runs: `multitask` alone."""
    check(run)
    run.arrays = synthetic.training_arrays(run.config)
    if run.validates:
        run.validation = synthetic.training_arrays(run.config, seed=1)
    multitask.run(run)


def check(run: Run) -> None:
    """Refuses what cannot work before the run's folder is claimed."""
    if run.config.quant.start:
        folder = start.folder(run.config)
        plan.whole(run.config)
        start.check(run.config, folder)


def finish(run: Run) -> None:
    """Writes down which weights a finished run has: what `quant.start` may ask for."""
    if run.trained:
        params = run_lib.finished_params(run.workdir)
        known = {
            "step": run.config.train.steps,
            "fingerprint": start.fingerprint(params),
            "source": provenance.source_state(),  # of the code that trained, not of the exporter
        }
        run_lib.summarize(run.workdir, known)

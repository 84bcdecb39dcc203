"""Bits, grids, scales and policies: every row starts from the float nano.

Command:  python -m experiments.training.quantization [--rows ROW ...] [--seeds N ...]
          [--again] [--smoke]
Hardware: 2 CPU cores; needs the built corpora. The float run is regained (float_start.py); rows of
          half the parameters need configs/nano_half.py trained.
Time:     40 minutes to cache, 5 more for each other backbone, 5 to 7 a row and seed.
Writes:   experiments/results/quantization.json, a row at a time: finished rows stay; and
          experiments/figures/quantization.png. Several may run at once, each with rows of its own.

A row that ends in "ptq" only quantizes the float model. Models are measured in JAX, with
activations rounded as LiteRT rounds them, but for the rows with static ranges.
"""

import dataclasses
import functools
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from configs.quant import ablation
from experiments import rows as rows_lib
from experiments import runner
from experiments.rows import Row
from experiments.tables import figures
from experiments.training import ablations, float_start
from mmllm import bundle
from mmllm.common import config as config_lib
from mmllm.common import paths
from mmllm.common.config import Config
from mmllm.common.types import Params
from mmllm.data import sources, synthetic
from mmllm.evaluate import benchmark, tasks
from mmllm.export import from_run
from mmllm.quant import tree
from mmllm.runtime.model import MobileMultiModalLLM
from mmllm.train import checkpoint, pipeline
from mmllm.train import state as state_lib
from mmllm.train.phases import cache_features, multitask, prepare
from mmllm.train.run import Run, claim
from mmllm.train.student import plan, start

KIND = "quantization"
SMOKED = ("int2", "float")  # rows of a smoke run that names none
FIGURE = rows_lib.RESULTS.parent / "figures" / f"{KIND}.png"
MEASURED = {
    tasks.Row("retrieval", "emoji", "style_out", seen_names=benchmark.SEEN_NAMES): (
        "image_to_text_r1"
    ),
    tasks.Row("caption", "emoji", "style_out", most=600): "exact",
    tasks.Row("lines", "ocr_lines", "unseen_print", most=400): "cer",
    tasks.Row("vqa", "composites", "test", most=400): "accuracy",
}
"""The four tasks, with the score that stands for each."""


def quantized(config: Config, teacher: Params) -> Params:
    """The float model with the scales of least square error for its rules."""
    weights = plan.trained(config).weights
    scales = tree.init_scales(teacher["model"], weights, config.quant.scale_start)
    return {"model": teacher["model"], "scales": scales}


def scores(config: Config, params: Params, workdir: Path) -> dict[str, Any]:
    """Bytes of the master and the score of each task, through the JAX engine."""
    with tempfile.TemporaryDirectory() as folder:
        made = from_run.write(config, params, workdir, Path(folder) / "bundle")
        size = bundle.read_manifest(made)["bytes"][bundle.WEIGHTS]
        model = MobileMultiModalLLM.from_pretrained(made, "jax")
        result = benchmark.run(model, tuple(MEASURED))
    found = {
        row.name: result["rows"][place]["metrics"][metric]
        for place, (row, metric) in enumerate(MEASURED.items())
    }
    return {"bytes": size, "scores": found, "average": average(found)}


def average(found: dict[str, Any]) -> float:
    """Mean over the tasks, an error rate counted as what it leaves of one."""
    values = [
        1.0 - found[row.name]["value"] if metric == "cer" else found[row.name]["value"]
        for row, metric in MEASURED.items()
    ]
    return float(np.mean(values))


@functools.cache
def _fingerprint_of(folder: Path) -> str:
    return start.fingerprint(start.load(folder))


def startable(names: Sequence[str], seeds: Sequence[int] | None) -> tuple[list[Row], list[str]]:
    """The rows whose float start is there, and what is to be said of the others."""
    found, waiting = [], []
    for name, seed in ablations.jobs(names, seeds):
        config = ablations.config_of(name, seed)
        try:
            folder = start.folder(config)
        except FileNotFoundError as error:
            waiting.append(f"{name} {seed}: {error}")
            continue
        found.append(Row(name=name, seed=seed, config=config, start=_fingerprint_of(folder)))
    return found, waiting


def measure(row: Row) -> dict[str, Any]:
    """Trains a row, or goes on with it, and measures it; its run folder is removed then."""
    config: Config = row.config
    name = config.name if ablations.trains(row.name) else f"{config.name}_ptq"
    workdir = paths.data_dir() / "runs" / name
    run = Run(config=config, workdir=workdir)
    pipeline.check(run)
    pipeline.prepare_only(run)
    claim(workdir, config)
    steps = 0
    if ablations.trains(row.name):
        multitask.run(run)
        assert run.trained
        params, steps = checkpoint.load_params(workdir), config.train.steps
    else:
        assert run.tables is not None
        assert run.arrays is not None
        prepare.keep_files(config, workdir)
        cache_features.keep_blocks(config, run.tables, workdir)
        teacher = multitask.teacher_of(config, run.arrays)
        assert teacher is not None
        params = quantized(config, teacher)
    found = scores(config, params, workdir)
    # The checkpoints of forty rows would fill the disk; what is measured stands in the result.
    shutil.rmtree(workdir, ignore_errors=True)
    print(f"{row.name} {row.seed}: {found['average']:.4f}, {found['bytes']:,} bytes", flush=True)
    return {"steps": steps, **found}


def draw(result: dict[str, Any]) -> None:
    """Draws the figure anew."""
    figures.draw_quantization(result, FIGURE)


def smoke(row: Row) -> dict[str, Any]:
    """Two steps on generated arrays with a model of the same kind, small."""
    config: Config = row.config
    model = dataclasses.replace(config.model, backbone="patch", image_side=64, vocab_size=512)
    # A model of patches has no backbone, and a rule that fits nothing is refused.
    rules = tuple(rule for rule in config.quant.rules if not rule.startswith("backbone/"))
    config = dataclasses.replace(
        config,
        model=model,
        quant=dataclasses.replace(config.quant, rules=rules),
        batch=config_lib.BatchConfig(**dict.fromkeys(dataclasses.asdict(config.batch), 2)),
        tune=dataclasses.replace(config.tune, steps=0),
        train=dataclasses.replace(config.train, steps=2, warmup_steps=1),
    )
    arrays = synthetic.training_arrays(config)
    teacher = state_lib.init_params(config, synthetic.CAPTIONS)
    with tempfile.TemporaryDirectory() as folder:
        multitask.train(config, arrays, Path(folder) / "run", teacher=teacher)
    return {}


def main() -> None:
    """Runs the rows that the results lack."""
    parser = runner.parser(__doc__, list(ablation.ROWS), resumes=True)
    parser.add_argument("--seeds", type=int, nargs="+", help="of those that a row has (all)")
    args = parser.parse_args()
    if args.smoke:
        names = SMOKED if args.rows == list(ablation.ROWS) else args.rows
        chosen = [Row(name=name, config=ablations.config_of(name, 0)) for name in names]
        runner.run(KIND, chosen, smoke, smoke=True)
        return
    if not sources.is_built("emoji"):
        parser.error("corpora are missing; run: mmllm data build all")
    float_start.regain()
    rows, waiting = startable(args.rows, args.seeds)
    runner.run(KIND, rows, measure, resume=not args.again, after=draw)
    if waiting:
        raise SystemExit("left out: " + "; ".join(waiting))


if __name__ == "__main__":
    main()

"""Bits, grids, scales and policies: every row starts from the float nano.

Command:  python -m experiments.quantization [--rows ROW ...] [--seeds N ...] [--smoke]
Hardware: 2 CPU cores; needs the built corpora. The float run is regained (float_start.py); rows of
          half the parameters need configs/nano_half.py trained.
Time:     40 minutes to cache, 5 more for each other backbone, 5 to 7 a row and seed.
Writes:   experiments/results/quantization.json, a row at a time: finished rows are kept; and
          experiments/figures/quantization.png. Several may run at once, each with rows of its own.

A row that ends in "ptq" only rounds the float model. Models are measured in JAX, with activations
rounded as LiteRT rounds them, but for the rows with static ranges.
"""

import argparse
import dataclasses
import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from configs.quant import ablation
from experiments import float_start, runner
from mmllm import bundle
from mmllm.common import config as config_lib
from mmllm.common import paths, tensors
from mmllm.common.config import Config
from mmllm.common.types import Params
from mmllm.data import pipeline, sources, synthetic
from mmllm.evaluate import benchmark, figures, provenance
from mmllm.evaluate.tasks import Row
from mmllm.export import from_run
from mmllm.quant import tree
from mmllm.runtime.model import MobileMultiModalLLM
from mmllm.train import cache, calibrate, checkpoint, loop, stages
from mmllm.train import state as state_lib

KIND = "quantization"
FIGURE = runner.RESULTS.parent / "figures" / f"{KIND}.png"
PTQ = "_ptq"
SEEDS = (0, 1)
ROUNDED = ("int8", "int8_static", "int4", "int2", "mixed")
HEADLINES = ("float", "int4", "int2", "int2_untaught", "seq", "mixed", "mixed_tail4")
MEASURED = {
    Row("retrieval", "emoji", "style_out", seen_names=benchmark.SEEN_NAMES): "image_to_text_r1",
    Row("caption", "emoji", "style_out", most=600): "exact",
    Row("lines", "ocr_lines", "unseen_print", most=400): "cer",
    Row("vqa", "composites", "test", most=400): "accuracy",
}
"""The four tasks, with the score that stands for each."""


def jobs(rows: Sequence[str], seeds: Sequence[int]) -> Iterator[tuple[str, int]]:
    """Row and seed; with seed 0 also what is only rounded, and the rows that have no other seed."""
    if 0 in seeds:
        yield "float_start", 0
        for row in ROUNDED:
            if row in rows:
                yield row + PTQ, 0
    for seed in seeds:
        for row in rows:
            if seed == 0 or row in HEADLINES:
                yield row, seed


def config_of(row: str, seed: int) -> Config:
    """The config that a row trains, or rounds, with."""
    name = "float" if row == "float_start" else row.removesuffix(PTQ)
    cfg = ablation.get_config(name)
    cfg.seed = seed
    cfg.name = f"{cfg.name}_{seed}"
    return config_lib.resolve(cfg)


def trained(
    config: Config, teacher: Params, arrays: pipeline.TrainingArrays, workdir: Path
) -> Params:
    """Trains a row, or goes on with it."""
    state = loop.train(config, arrays, workdir, teacher=teacher)
    assert int(state.step) == config.train.steps
    return checkpoint.load_params(workdir)


def rounded(config: Config, teacher: Params) -> Params:
    """The float model with the scales of least square error for its rules."""
    planned = stages.trained(stages.plan(config))
    scales = tree.init_scales(teacher["model"], planned, config.quant.scale_start)
    return {"model": teacher["model"], "scales": scales}


def measure(config: Config, params: Params, workdir: Path, limit: int | None) -> dict[str, Any]:
    """Bytes of the master and the score of each task, through the JAX engine."""
    with tempfile.TemporaryDirectory() as folder:
        made = from_run.write(config, params, workdir, Path(folder) / "bundle")
        size = bundle.read_manifest(made)["bytes"][bundle.WEIGHTS]
        model = MobileMultiModalLLM.from_pretrained(made, "jax")
        result = benchmark.run(model, tuple(MEASURED), limit=limit)
    scores = {
        row.name: result["rows"][place]["metrics"][metric]
        for place, (row, metric) in enumerate(MEASURED.items())
    }
    return {"bytes": size, "scores": scores, "average": average(scores)}


def average(scores: dict[str, Any]) -> float:
    """Mean over the tasks, an error rate counted as what it leaves of one."""
    values = [
        1.0 - scores[row.name]["value"] if metric == "cer" else scores[row.name]["value"]
        for row, metric in MEASURED.items()
    ]
    return float(np.mean(values))


def known(job: dict[str, Any], found: Sequence[dict[str, Any]]) -> bool:
    """Whether a row stands in the results already, with the same config and float start."""
    return any(all(each.get(key) == value for key, value in job.items()) for each in found)


def finished() -> list[dict[str, Any]]:
    """The rows of the last result."""
    path = runner.RESULTS / f"{KIND}.json"
    return json.loads(path.read_text())["rows"] if path.is_file() else []


def fingerprint(teacher: Params) -> str:
    """Short sha256 of a float start's weights, as a bundle would hold them."""
    digest = hashlib.sha256()
    for path, value in tensors.flatten(teacher["model"]):
        digest.update(path.encode() + np.asarray(value, np.float16).tobytes())
    return digest.hexdigest()[:12]


def run(rows: Sequence[str], seeds: Sequence[int]) -> None:
    """Trains and measures what is missing, and writes the result after each row.

    Raises:
      SystemExit: rows whose float start has not been trained; all others are finished then.
    """
    source = provenance.source_state()  # of the code that runs, whatever is committed meanwhile
    float_start.regain()
    waiting = []
    for row, seed in jobs(rows, seeds):
        config = config_of(row, seed)
        try:
            start = stages.start_folder(config)
        except FileNotFoundError as error:
            waiting.append(f"{row} {seed}: {error}")
            continue
        name = f"{config.name}{'_rounded' if only_rounded(row) else ''}"
        with runner.lock(paths.data_dir() / "runs" / f"{name}.lock"):
            stages.check_start(config, start)
            entry = finish(row, config, start, name)
            if entry:
                add({**entry, "git": source})
                print(f"{row} {seed}: {entry['average']:.4f}, {entry['bytes']:,} bytes", flush=True)
    if waiting:
        raise SystemExit("left out: " + "; ".join(waiting))


def only_rounded(row: str) -> bool:
    """Whether a row trains nothing."""
    return row == "float_start" or row.endswith(PTQ)


def finish(row: str, config: Config, start: Path, name: str) -> dict[str, Any] | None:
    """A row of the result; None if it is there already."""
    teacher = stages.load_teacher(start)
    job = {
        "row": row,
        "seed": config.seed,
        "start": fingerprint(teacher),
        "config_sha256": config_lib.sha256(config),
    }
    if known(job, finished()):
        return None
    print(f"== {row}, seed {config.seed}", flush=True)
    folder = cache.prepare(config)
    arrays = cache.open_arrays(config, folder)
    teacher = calibrate.calibrated(config, teacher, arrays)
    workdir = paths.data_dir() / "runs" / name
    loop.claim(workdir, config)
    cache.keep_files(config, folder, workdir)
    begun = time.monotonic()
    if only_rounded(row):
        params, steps = rounded(config, teacher), 0
    else:
        params, steps = trained(config, teacher, arrays, workdir), config.train.steps
    measured = measure(config, params, workdir, None)
    shutil.rmtree(workdir, ignore_errors=True)
    return {**job, "steps": steps, **measured, "seconds": round(time.monotonic() - begun)}


def add(entry: dict[str, Any]) -> None:
    """Puts a row in the place of the one of its name, seed and start; draws the figure anew."""

    def place(each: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(each.get(key) for key in ("row", "seed", "start"))

    with runner.lock(paths.data_dir() / "runs" / f"{KIND}.lock"):
        rows = [each for each in finished() if place(each) != place(entry)] + [entry]
        written = runner.write(KIND, config_of("int2", 0), {"rows": rows})
        figures.draw_quantization(json.loads(written.read_text()), FIGURE)


def smoke() -> None:
    """Two rows, two steps each, on generated arrays: nothing is measured and nothing written."""
    for row in ("int2", "float"):
        config = config_of(row, 0)
        model = dataclasses.replace(config.model, backbone="patch", image_side=64, vocab_size=512)
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
        teacher = state_lib.init_state(config, synthetic.CAPTIONS).params
        with tempfile.TemporaryDirectory() as folder:
            loop.train(config, arrays, Path(folder) / "run", teacher=teacher)


def main() -> None:
    """Runs the rows that the results lack."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", nargs="+", choices=list(ablation.ROWS), metavar="ROW")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=SEEDS, help="of the headline rows (0 1)"
    )
    parser.add_argument("--smoke", action="store_true", help="two steps on generated arrays")
    args = parser.parse_args()
    if args.smoke:
        smoke()
        return
    if not sources.is_built("emoji"):
        parser.error("corpora are missing; run: mmllm data build all")
    run(args.rows or list(ablation.ROWS), args.seeds)


if __name__ == "__main__":
    main()

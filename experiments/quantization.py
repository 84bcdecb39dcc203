"""Bits, grids, scales and policies: every row starts from the float nano.

Command:  python -m experiments.quantization [--rows ROW ...] [--seeds N ...] [--smoke]
Hardware: 2 CPU cores; needs the built corpora. The float run is regained (float_start.py); rows of
          half the parameters need configs/nano_half.py trained.
Time:     40 minutes to cache, 5 more for each other stem, about 4 a row and seed.
Writes:   experiments/results/quantization.json, a row at a time: finished rows are kept; and
          experiments/figures/quantization.png. Several may run at once, each with rows of its own.

A row that ends in "ptq" only rounds the float model. Models are measured in JAX, with activations
rounded as LiteRT rounds them.
"""

import argparse
import dataclasses
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
from mmllm.common import config as config_lib
from mmllm.common import paths
from mmllm.common.config import Config
from mmllm.common.types import Params
from mmllm.data import pipeline, sources, synthetic
from mmllm.evaluate import benchmark, figures, provenance
from mmllm.evaluate.tasks import Row
from mmllm.export import bundle, from_run
from mmllm.quant import tree
from mmllm.runtime.model import MobileMultiModalLLM
from mmllm.train import cache, calibrate, checkpoint, loop, stages
from mmllm.train import state as state_lib

KIND = "quantization"
FIGURE = runner.RESULTS.parent / "figures" / f"{KIND}.png"
PTQ = "_ptq"
SEEDS = (0, 1)
ROUNDED = ("int8", "int8_static", "int4", "int2", "mixed")
HEADLINES = ("float", "int8", "int4", "int2", "int2_untaught", "ternary", "seq", "mixed")
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


def known(config_sha256: str, row: str, found: Sequence[dict[str, Any]]) -> bool:
    """Whether a row stands in the results already, with the same config."""
    return any(each["row"] == row and each["config_sha256"] == config_sha256 for each in found)


def finished() -> list[dict[str, Any]]:
    """The rows of the last result."""
    path = runner.RESULTS / f"{KIND}.json"
    return json.loads(path.read_text())["rows"] if path.is_file() else []


def run(rows: Sequence[str], seeds: Sequence[int]) -> None:
    """Trains and measures what is missing, and writes the result after each row."""
    float_start.regain()
    for row, seed in jobs(rows, seeds):
        config = config_of(row, seed)
        digest = config_lib.sha256(config)
        if known(digest, row, finished()):
            continue
        print(f"== {row}, seed {seed}", flush=True)
        start = stages.start_folder(config)
        stages.check_start(config, start)
        folder = cache.prepare(config)
        arrays = cache.open_arrays(config, folder)
        teacher = calibrate.calibrated(config, stages.load_teacher(start), arrays)
        workdir = paths.data_dir() / "runs" / config.name
        loop.claim(workdir, config)
        cache.keep_files(config, folder, workdir)
        begun = time.monotonic()
        if row == "float_start" or row.endswith(PTQ):
            params, steps = rounded(config, teacher), 0
        else:
            params, steps = trained(config, teacher, arrays, workdir), config.train.steps
        entry = {
            "row": row,
            "seed": seed,
            "steps": steps,
            "config_sha256": digest,
            **measure(config, params, workdir, None),
            "seconds": round(time.monotonic() - begun),
            **provenance.source_state(),
        }
        add(entry)
        shutil.rmtree(workdir, ignore_errors=True)
        print(f"{row} {seed}: {entry['average']:.4f}, {entry['bytes']:,} bytes", flush=True)


def add(entry: dict[str, Any]) -> None:
    """Puts a row in the place of the one of its name and seed, and draws the figure anew."""
    same = entry["row"], entry["seed"]
    rows = [each for each in finished() if (each["row"], each["seed"]) != same] + [entry]
    written = runner.write(KIND, config_of("int2", 0), {"rows": rows})
    figures.draw_quantization(json.loads(written.read_text()), FIGURE)


def smoke() -> None:
    """Two rows, two steps each, on generated arrays: nothing is measured and nothing written."""
    for row in ("int2", "float"):
        config = config_of(row, 0)
        model = dataclasses.replace(config.model, stem="patch", image_side=64, vocab_size=512)
        rules = tuple(rule for rule in config.quant.rules if not rule.startswith("stem/"))
        config = dataclasses.replace(
            config,
            model=model,
            quant=dataclasses.replace(config.quant, rules=rules),
            mix=config_lib.MixConfig(**dict.fromkeys(dataclasses.asdict(config.mix), 2)),
            tune=dataclasses.replace(config.tune, steps=0),
            train=dataclasses.replace(config.train, steps=2, warmup_steps=1),
        )
        arrays = synthetic.training_arrays(config)
        teacher = state_lib.init_state(config, synthetic.BANK).params
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

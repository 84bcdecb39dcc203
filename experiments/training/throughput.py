"""How fast a training step runs, against the machine's matrix-product peak.

Command:  python -m experiments.training.throughput [--rows=nano] [--steps=20] [--smoke]
Writes:   experiments/results/throughput.json

Steps run on generated arrays of the real shapes: the figure is the step alone, without data.
"""

import importlib
import json
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import runner
from experiments.rows import Row
from mmllm.common import config as config_lib
from mmllm.data import pipeline, synthetic
from mmllm.train import optimizer, state, step
from mmllm.train.text import prototypes as prototypes_lib

CAPTIONS = 2100
MATRIX = 2048
CONFIGS = ("tiny", "nano")


def seconds(function: Any, *arguments: Any, repeats: int) -> list[float]:
    """Wall seconds of each of `repeats` calls, after one that is not counted."""
    jax.block_until_ready(function(*arguments))
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        times.append(time.perf_counter() - start)
    return times


def matmul_peak() -> float:
    """Best float32 GFLOP/s of a large matrix product."""
    matrix = jnp.ones((MATRIX, MATRIX))
    return 2 * MATRIX**3 / min(seconds(jax.jit(jnp.matmul), matrix, matrix, repeats=20)) / 1e9


def measure(config: config_lib.Config, repeats: int) -> dict[str, float]:
    """Median step time, examples/s, GFLOP a step as XLA counts them, and the share of the peak."""
    batch = next(pipeline.batches(config, synthetic.training_arrays(config)))
    prototypes = np.zeros((CAPTIONS, prototypes_lib.TEACHER_WIDTH), np.float32)
    tx = optimizer.make(config.train)
    fresh = state.fresh(state.init_params(config, CAPTIONS), tx)
    function = jax.jit(step.make_step(config, tx))
    compiled = function.lower(fresh, batch, prototypes).compile()
    cost: Any = compiled.cost_analysis()
    gflop = float(cost["flops"]) / 1e9
    step_seconds = float(np.median(seconds(compiled, fresh, batch, prototypes, repeats=repeats)))
    peak = matmul_peak()
    return {
        "step_seconds": step_seconds,
        "examples_per_second": config.batch.total / step_seconds,
        "gflop_per_step": gflop,
        "gflop_per_second": gflop / step_seconds,
        "matmul_peak_gflop_per_second": peak,
        "share_of_peak": gflop / step_seconds / peak,
    }


def main() -> None:
    """Measures configs, one a row."""
    parser = runner.parser(__doc__, CONFIGS)
    parser.add_argument("--steps", type=int, default=20)
    parser.set_defaults(rows=["nano"])
    args = parser.parse_args()

    def figures(row: Row) -> dict[str, Any]:
        metrics = measure(row.config, 2 if args.smoke else args.steps)
        print(json.dumps(metrics, indent=1))
        return {"metrics": metrics}

    names = ["tiny"] if args.smoke else args.rows
    modules = [importlib.import_module(f"configs.{name}") for name in names]
    rows = [
        Row(name=name, config=config_lib.resolve(module.get_config()))
        for name, module in zip(names, modules, strict=True)
    ]
    runner.run("throughput", rows, figures, smoke=args.smoke)


if __name__ == "__main__":
    main()

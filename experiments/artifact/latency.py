"""How fast a bundle's LiteRT file is beside the same model in float32 and in int8.

Command:  python -m experiments.artifact.latency [BUNDLE] [--smoke] (make bench-latency)
Hardware: 2 CPU cores, otherwise idle.
Time:     4 minutes.
Writes:   experiments/results/latency.json, a row for each processor, so that what another one took
          stays in the table

All three files run in one process, one call of each in turn, so that what else the machine does
meets them alike. Then each layer runs by itself, to see where the time goes. No phone was at hand:
these are ratios on a server CPU.
"""

import functools
import hashlib
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ai_edge_litert.interpreter import Interpreter

from experiments import runner
from experiments.rows import Row
from mmllm import bundle as bundle_lib
from mmllm.common.config import ModelConfig
from mmllm.evaluate import provenance
from mmllm.export import signatures
from mmllm.export.targets.litert import codes, convert
from mmllm.parity import layers as layers_lib
from mmllm.parity import samples as samples_lib
from mmllm.parity import taps
from mmllm.quant import tree
from mmllm.quant.coded import Coded
from mmllm.quant.rules import Rule
from mmllm.runtime import model as model_lib
from mmllm.runtime.engines.litert import LiteRtEngine

THREADS = (1, 2)
RUNS = 40
CAPTION_STEPS = 6  # tokens of a usual caption, its end included


def files(bundle: bundle_lib.Bundle) -> dict[str, bytes]:
    """The model in float32, with all its coded weights at int8, and as the bundle has it."""
    held = jax.tree.map(jnp.asarray, bundle.params)
    plain = convert.convert(signatures.signatures(bundle.config, held))
    folded = codes.folds(bundle.config, bundle.params)
    planned = {path: Rule(path, "int8") for path in bundle.coded}
    eight = tree.quantize(held, tree.init_scales(held, planned), planned)
    held = jax.tree.map(jnp.asarray, _decoded(bundle.params, eight))
    as_int8 = convert.convert(signatures.signatures(bundle.config, held))
    return {
        "float32": plain,
        "int8": codes.put_codes(as_int8, eight, folded),
        "bundle": codes.put_codes(plain, bundle.coded, folded),
    }


def _decoded(params: Mapping[str, Any], coded: Mapping[str, Coded]) -> Any:
    return tree.dequantize(jax.tree.map(jnp.asarray, params), coded)


def stages(engine: LiteRtEngine, config: ModelConfig) -> dict[str, Callable[[], Any]]:
    """One call of each stage, on fixed noise."""
    rng = np.random.default_rng(0)
    side = config.image_side
    pixels = rng.uniform(0, 255, (1, side, side, 3)).astype(np.float32)
    lines = rng.uniform(0, 255, (1, config.line_height, config.line_width)).astype(np.float32)
    ids = np.ones((1, 4), np.int32)
    prefix = engine.encode_image(pixels)
    _, cache = engine.prefill(prefix, ids)
    token = np.ones(1, np.int32)
    position = np.full(1, config.prefix_length + 4, np.int32)

    def caption() -> None:
        _, cache = engine.prefill(engine.encode_image(pixels), ids)
        for step in range(CAPTION_STEPS):
            _, cache = engine.decode_step(token, position + np.int32(step), cache)

    return {
        "encode_image": lambda: engine.encode_image(pixels),
        "embed_text": lambda: engine.embed_text(ids),
        "read_lines": lambda: engine.read_lines(lines),
        "prefill": lambda: engine.prefill(prefix, ids),
        "decode_step": lambda: engine.decode_step(token, position, cache),
        "caption": caption,
    }


def medians(
    calls: Mapping[str, Callable[[], Any]],
    runs: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median milliseconds of each call, taken in turn; the first turn does not count."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(runs + 1):
        for name, call in calls.items():
            start = clock()
            call()
            milliseconds = 1e3 * (clock() - start)
            if turn:
                taken[name].append(milliseconds)
    return {name: float(np.median(times)) for name, times in taken.items()}


def measure(made: Mapping[str, bytes], config: ModelConfig, runs: int) -> list[dict[str, Any]]:
    """Rows of {"threads", "stage", milliseconds by file, "speedup" over float32}."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, file in made.items():
            (Path(folder) / name).write_bytes(file)
        for threads in THREADS:
            engines = {name: LiteRtEngine(Path(folder) / name, config, threads) for name in made}
            by_file = {name: stages(engine, config) for name, engine in engines.items()}
            for stage in next(iter(by_file.values())):
                found = medians({name: calls[stage] for name, calls in by_file.items()}, runs)
                rows.append(
                    {
                        "threads": threads,
                        "stage": stage,
                        "milliseconds": {name: round(value, 4) for name, value in found.items()},
                        "speedup": {
                            name: round(found["float32"] / value, 3)
                            for name, value in found.items()
                        },
                    }
                )
    return rows


def measure_layers(bundle: bundle_lib.Bundle, runs: int) -> list[dict[str, Any]]:
    """Rows of {"layer", milliseconds in float32 and as the bundle has it}, one thread, by itself.

    A call costs some hundredths of a millisecond besides the layer: a norm is little more.
    """
    jaxed = model_lib.MobileMultiModalLLM.from_pretrained(bundle.folder, "jax")
    samples = samples_lib.of_inputs(jaxed, samples_lib.shipped_sample())
    params = jax.tree.map(jnp.asarray, bundle.params)
    recorded = layers_lib.recorded_on(bundle, params, samples, 0)
    plain = convert.convert(taps.signatures(recorded, params))
    made = {"float32": plain, "bundle": codes.put_codes(plain, bundle.coded, {})}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        runners = {}
        for name, file in made.items():
            (Path(folder) / name).write_bytes(file)
            runners[name] = Interpreter(model_path=str(Path(folder) / name), num_threads=1)
        for layer in recorded:
            inputs = {f"input_{i}": value for i, value in enumerate(layer.inputs)}
            calls = {
                name: functools.partial(
                    interpreter.get_signature_runner(taps.signature_name(layer.name)), **inputs
                )
                for name, interpreter in runners.items()
            }
            found = {name: round(value, 4) for name, value in medians(calls, runs).items()}
            rows.append({"layer": layer.name, "milliseconds": found})
    return rows


def main() -> None:
    """Measures a bundle and writes the result: a row for each processor."""
    parser = runner.parser(__doc__)
    parser.add_argument(
        "bundle", type=Path, nargs="?", default=model_lib.locate("nano"), help="a quantized bundle"
    )
    parser.add_argument("--runs", type=int, default=RUNS, help="calls a median (%(default)s)")
    args = parser.parse_args()
    bundle = bundle_lib.load(args.bundle)
    if not bundle.coded:
        parser.error(f"{args.bundle} has no quantized weights: nothing to compare")
    runs = 1 if args.smoke else args.runs

    def figures(_: Row) -> dict[str, Any]:
        made = files(bundle)
        timed = measure(made, bundle.config, runs)
        layers = [] if args.smoke else measure_layers(bundle, runs)  # minutes to convert
        for each in (*timed, *layers):
            print(each)
        digest = hashlib.sha256(made["bundle"]).hexdigest()
        sizes = {name: len(file) for name, file in made.items()}
        return {"runs": runs, "bytes": sizes, "sha256": digest, "stages": timed, "layers": layers}

    row = Row(name=provenance.device()["processor"], config=bundle.config)
    runner.run("latency", [row], figures, smoke=args.smoke)


if __name__ == "__main__":
    main()

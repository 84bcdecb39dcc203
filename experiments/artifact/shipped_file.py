"""What ships, byte by byte: its LiteRT file, how near it is to JAX, what a first caption costs.

Command:  python -m experiments.artifact.shipped_file [BUNDLE] [--smoke]
Hardware: 2 CPU cores, Linux; needs the built corpora for held-out pictures.
Time:     3 minutes.
Writes:   experiments/results/artifact.json
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from experiments import runner
from experiments.rows import Row
from mmllm import bundle as bundle_lib
from mmllm.bundle import sizes
from mmllm.data import sources
from mmllm.evaluate import corpus
from mmllm.export import signatures
from mmllm.export.targets.litert import budget, convert
from mmllm.parity import report, samples
from mmllm.runtime import model, sample

PICTURES, LINES = 160, 32
FLOAT_BYTES = 4
STARTS = 5
CAPTION = """
import json, sys, time
start = time.perf_counter()
from mmllm import MobileMultiModalLLM
model = MobileMultiModalLLM.from_pretrained(sys.argv[1])
text = model.caption(sys.argv[2])
seconds = time.perf_counter() - start
status = open("/proc/self/status").read()  # getrusage would count the parent's memory in
peak = 1024 * int(status.split("VmHWM:")[1].split()[0])
print(json.dumps({"seconds": seconds, "peak": peak, "jax": "jax" in sys.modules}))
"""


def held_out() -> samples.Inputs:
    """Pictures of unseen artists, with their names, and lines in unseen fonts."""

    def some(name: str, split: str, most: int) -> list[Any]:
        source = sources.load(name, split)
        return [source[index] for index in corpus.draw(len(source), most)]

    pictures, lines = some("emoji", "style_out", PICTURES), some("ocr_lines", "unseen_print", LINES)
    names = [corpus.names(corpus.captions(picture))[0] for picture in pictures]
    return samples.Inputs([p["image"] for p in pictures], [line["image"] for line in lines], names)


def explained(file: bytes) -> list[dict[str, Any]]:
    """The rows of the budget, and how many times smaller packed weights are than in float32."""
    rows = []
    for row in budget.of_file(file)["rows"]:
        packed = row["type"] in ("INT2", "INT4", "INT8") and row["part"] in sizes.CLASSES.values()
        packed = packed or (row["part"], row["type"]) == ("pretrained backbone", "INT8")
        whole = FLOAT_BYTES * row["weights"]
        rows.append({**row, "times": round(whole / row["bytes"], 2) if packed else None})
    return rows


def first_caption(folder: Path, starts: int = STARTS) -> dict[str, Any]:
    """Import, load and first caption in a new process: the median time, and the peak memory."""
    picture = sample.load()[0].path
    runs = []
    for _ in range(starts):
        command = [sys.executable, "-c", CAPTION, str(folder), str(picture)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        runs.append(json.loads(done.stdout))
    assert not any(run["jax"] for run in runs), "the runtime imported JAX"
    return {
        "what": "import, load, first caption",
        "seconds": sorted(run["seconds"] for run in runs)[starts // 2],
        "megabytes": max(run["peak"] for run in runs) / 1e6,
    }


def main() -> None:
    """Measures a bundle and writes the result."""
    parser = runner.parser(__doc__)
    parser.add_argument("bundle", type=Path, nargs="?", default=model.locate("nano"))
    args = parser.parse_args()
    folder = args.bundle
    bundle = bundle_lib.load(folder)

    def figures(_: Row) -> dict[str, Any]:
        start = first_caption(folder, 1 if args.smoke else STARTS)
        inputs = samples.shipped_sample() if args.smoke else held_out()
        measured = report.measure(folder, inputs)
        report.check(measured)
        print(report.summary(measured))
        file = (folder / bundle_lib.LITERT).read_bytes()
        held = jax.tree.map(jnp.asarray, bundle.params)
        whole = convert.convert(signatures.signatures(bundle.config, held))
        return {
            "bytes": len(file),
            "float32_bytes": len(whole),
            "parts": explained(file),
            "starts": [start],
            "parity": measured,
        }

    row = Row(name=bundle.manifest["name"], config=bundle.config)
    runner.run("artifact", [row], figures, smoke=args.smoke)


if __name__ == "__main__":
    main()

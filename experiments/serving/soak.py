"""Ten minutes of each task, streams, index writes and bad uploads: is memory flat, does any fail.

Command:  python -m experiments.serving.soak [--minutes 10] [--rate 20] [--smoke]
Hardware: 2 CPU cores, which the load shares with the service.
Time:     11 minutes.
Writes:   experiments/results/serving_soak.json

Memory is flat when the line through the samples after the first fifth rises by less than
MAX_MB_AN_HOUR; caches and the allocator's pools fill before.
"""

import asyncio
import base64
import json
import threading
import time
from typing import Any
from urllib import parse

import numpy as np

from experiments import runner
from experiments.rows import Row
from experiments.serving import load_generator, service_process

SAMPLE_S = 5.0
WARM_SHARE = 0.2
MAX_MB_AN_HOUR = 30.0
MB = 1_000_000
PICTURES = 3000  # more than the cache keeps: it must let go, too
TURNS = 12
INDEXED = 100  # names in the index, each written more than once
CACHE = {"MMLLM_CACHE_ITEMS": "1000"}


def requests(url: str, count: int = PICTURES) -> list[bytes]:
    """Each kind of request in its turn, and broken uploads; captions and vectors more often."""
    found = []
    for number, picture in enumerate(load_generator.pictures(count)):
        image = base64.b64encode(picture).decode()
        turn = number % TURNS
        if turn < 3:
            found.append(load_generator.request(url, "/v1/caption", picture))
        elif turn < 5:
            found.append(load_generator.request(url, "/v1/embed/image", picture))
        elif turn == 5:
            texts = {"texts": [f"a red bus {number}", "two cats"]}
            found.append(_json(url, "/v1/embed/text", texts))
        elif turn == 6:
            found.append(_json(url, "/v1/search", {"text": f"a bus {number}", "k": 3}))
        elif turn == 7:
            found.append(load_generator.request(url, "/v1/ocr", picture))
        elif turn == 8:
            body = {"image": image, "question": "what color is it?"}
            found.append(_json(url, "/v1/vqa", body))
        elif turn == 9:
            name = f"picture-{number // TURNS % INDEXED}"
            found.append(load_generator.request(url, f"/v1/index/{name}", picture))
        elif turn == 10:
            found.append(_chat(url, image, stream=number // TURNS % 2 == 0))
        else:
            found.append(load_generator.request(url, "/v1/caption", picture[: len(picture) // 2]))
    return found


def _chat(url: str, image: str, stream: bool) -> bytes:
    parts = [
        {"type": "text", "text": "describe it"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}},
    ]
    messages = [{"role": "user", "content": parts}]
    document = {"model": "nano", "messages": messages, "stream": stream}
    return _json(url, "/v1/chat/completions", document)


def _json(url: str, path: str, document: Any) -> bytes:
    body = json.dumps(document).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {parse.urlsplit(url).netloc}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def sample(service: service_process.Service, seconds: float) -> list[tuple[float, float]]:
    """Memory (MB) at times (s) while the load runs."""
    start, samples = time.perf_counter(), []
    while (now := time.perf_counter() - start) < seconds:
        samples.append((round(now, 1), round(service.resident_bytes() / MB, 2)))
        time.sleep(min(SAMPLE_S, seconds / 20))
    return samples


def slope(samples: list[tuple[float, float]]) -> float:
    """MB an hour of the line through the samples after the warm-up."""
    after = np.array(samples[int(len(samples) * WARM_SHARE) :])
    return float(np.polyfit(after[:, 0], after[:, 1], 1)[0] * 3600)


def measure(seconds: float, rate: float) -> dict[str, Any]:
    """Runs the load and the samples side by side."""
    with service_process.mmllm(**CACHE) as service:
        made = requests(service.url)
        outcomes = load_generator.Outcomes()

        def run() -> None:
            nonlocal outcomes
            outcomes = asyncio.run(load_generator.opened(service.url, made, rate, seconds))

        thread = threading.Thread(target=run)
        thread.start()
        samples = sample(service, seconds)
        thread.join()
        code = service.end()
    minutes = np.array(outcomes.at) // 60
    p99 = [
        round(float(np.percentile(np.array(outcomes.seconds)[minutes == minute], 99)) * 1000, 1)
        for minute in sorted(set(minutes))
    ]
    rise = slope(samples)
    return {
        "seconds": seconds,
        "rate": rate,
        **load_generator.summary(outcomes, seconds),
        "p99_ms_by_minute": p99,
        "memory_mb": samples,
        "memory_mb_first": samples[0][1],
        "memory_mb_last": samples[-1][1],
        "memory_mb_an_hour": round(rise, 2),
        "flat": rise < MAX_MB_AN_HOUR,
        "exit_code": code,
    }


def main() -> None:
    """Measures and writes the result; --smoke takes half a minute and writes nothing."""
    parser = runner.parser(__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="10 or more (%(default)s)")
    parser.add_argument("--rate", type=float, default=20.0, help="requests a second")
    args = parser.parse_args()
    if args.minutes < 10:
        parser.error(f"--minutes must be 10 or more, got {args.minutes}; use --smoke for less")
    seconds = 30.0 if args.smoke else args.minutes * 60

    def figures(_: Row) -> dict[str, Any]:
        fields = measure(seconds, args.rate)
        print(json.dumps({name: each for name, each in fields.items() if name != "memory_mb"}))
        return fields

    runner.run("serving_soak", [service_process.shipped()], figures, smoke=args.smoke)


if __name__ == "__main__":
    main()

"""Load on an HTTP service, from a process of its own: closed (N clients) or open (a fixed rate).

Command:  python -m experiments.serving.load_generator URL --task caption --clients 8 --seconds 5
Prints:   one JSON document, see `summary`.

Speaks HTTP/1.1 itself: on this model's scale a client library would take the larger part of the
processor that the service is to have. Requests are made once, before the clock starts; each is
a picture of its own, so that neither a cache nor a joined request answers for the model.
"""

import argparse
import asyncio
import dataclasses
import io
import json
import random
import sys
import time
from typing import Any
from urllib import parse

import numpy as np
from PIL import Image

from mmllm.runtime import sample

PICTURES = 512
HANG_S = 30.0  # an answer that takes longer counts as hung
REFUSED_S = 0.05  # what a client waits that got no good answer
BOUNDARY = "mmllm-load"
PATHS = {"caption": "/v1/caption", "embed": "/v1/embed/image"}
SEED = 0


@dataclasses.dataclass
class Outcomes:
    """What came of the requests: seconds of the good answers, and counts of the others."""

    seconds: list[float] = dataclasses.field(default_factory=list)
    at: list[float] = dataclasses.field(default_factory=list)
    statuses: dict[str, int] = dataclasses.field(default_factory=dict)
    wrong: int = 0
    failed_at: list[float] = dataclasses.field(default_factory=list)

    def add(self, status: str, seconds: float, right: bool = True) -> None:
        """Counts one request."""
        self.statuses[status] = self.statuses.get(status, 0) + 1
        if status == "200":
            self.seconds.append(seconds)
            self.at.append(time.time())
            self.wrong += not right
        else:
            self.failed_at.append(time.time())


def pictures(count: int = PICTURES) -> list[bytes]:
    """Different PNG files, made from the drawings of the sample by changing one corner."""
    drawings = sorted(sample.SAMPLE.glob("drawing-*.png"))
    files = []
    for number in range(count):
        image = Image.open(drawings[number % len(drawings)]).convert("RGB")
        image.putpixel((0, 0), (number % 256, number // 256, 128))
        file = io.BytesIO()
        image.save(file, "PNG", compress_level=1)
        files.append(file.getvalue())
    return files


def request(url: str, path: str, picture: bytes) -> bytes:
    """The bytes of one upload."""
    body = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n'
        f"Content-Type: image/png\r\n\r\n"
    ).encode()
    body += picture + f"\r\n--{BOUNDARY}--\r\n".encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {parse.urlsplit(url).netloc}\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Client:
    """One connection, opened when first needed and again when it breaks."""

    def __init__(self, url: str) -> None:
        parts = parse.urlsplit(url)
        self._address = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, sent: bytes) -> tuple[str, bytes]:
        """Status and body, or a word for what went wrong: "broken" or "hung".

        A connection that the server closed while it was idle is opened again, as any client does.
        """
        if self._streams is not None and self._streams[0].at_eof():
            self.close()
        try:
            return await asyncio.wait_for(self._exchange(sent), HANG_S)
        except TimeoutError:
            self.close()
            return "hung", b""
        except (OSError, EOFError, ValueError):
            self.close()
            return "broken", b""

    async def _exchange(self, sent: bytes) -> tuple[str, bytes]:
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._address)
        reader, writer = self._streams
        writer.write(sent)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status, *lines = head.split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines if ": " in line)
        if headers.get("transfer-encoding") == "chunked":
            body = await chunks(reader)
        else:
            body = await reader.readexactly(int(headers.get("content-length", "0")))
        if headers.get("connection") == "close":
            self.close()
        return status.split(" ")[1], body

    def close(self) -> None:
        """Closes the connection."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def chunks(reader: asyncio.StreamReader) -> bytes:
    """A body sent in chunks, each after its own length, as a stream is."""
    body = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    await reader.readuntil(b"\r\n")
    return body


async def closed(
    url: str, requests: list[bytes], clients: int, seconds: float, expected: list[Any] | None = None
) -> Outcomes:
    """Each client asks, waits for the answer, and asks again; refused ones pause a little."""
    outcomes, end = Outcomes(), time.perf_counter() + seconds
    places = iter(range(10**9))  # shared, so that no two clients send the same picture

    async def work() -> None:
        client = Client(url)
        while time.perf_counter() < end:
            await once(client, requests, next(places), outcomes, expected)
        client.close()

    await asyncio.gather(*(work() for _ in range(clients)))
    return outcomes


async def opened(
    url: str, requests: list[bytes], rate: float, seconds: float, expected: list[Any] | None = None
) -> Outcomes:
    """Requests come at random times, `rate` a second, whether or not earlier ones are answered.

    Latency counts from the moment a request was due, so that a late generator hides nothing.
    """
    outcomes, draw = Outcomes(), random.Random(SEED)
    idle: list[Client] = []
    tasks = []
    start = due = time.perf_counter()

    async def one(place: int, due: float) -> None:
        # As many connections as requests are open at once: a late answer holds up no other.
        client = idle.pop() if idle else Client(url)
        await once(client, requests, place, outcomes, expected, due)
        idle.append(client)

    while due < start + seconds:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(len(tasks), due)))
        due += draw.expovariate(rate)  # independent users: a Poisson process
    await asyncio.gather(*tasks)
    for client in idle:
        client.close()
    return outcomes


async def once(
    client: Client,
    requests: list[bytes],
    place: int,
    outcomes: Outcomes,
    expected: list[Any] | None = None,
    due: float | None = None,
) -> None:
    """One request and what came of it."""
    start = time.perf_counter() if due is None else due
    which = place % len(requests)
    status, body = await client.ask(requests[which])
    right = expected is None or status != "200" or answer(body) == expected[which]
    outcomes.add(status, time.perf_counter() - start, right)
    # Else a client that is refused at once would send thousands a second.
    if status != "200" and due is None:
        await asyncio.sleep(REFUSED_S)


def answer(body: bytes) -> Any:
    """What a task says, without what differs from call to call."""
    document = json.loads(body)
    return document.get("caption", document.get("embedding"))


def summary(outcomes: Outcomes, seconds: float) -> dict[str, Any]:
    """Requests a second and percentiles (ms) of good answers, and how often what came back."""
    row: dict[str, Any] = {
        "requests_per_second": round(len(outcomes.seconds) / seconds, 1),
        "statuses": dict(sorted(outcomes.statuses.items())),
        "wrong": outcomes.wrong,
    }
    for share in (50, 95, 99):
        value = np.percentile(outcomes.seconds, share) * 1000 if outcomes.seconds else None
        row[f"p{share}_ms"] = None if value is None else round(float(value), 1)
    return row


def main() -> None:
    """Runs one load and prints its summary."""
    parser = argparse.ArgumentParser(description="Puts load on a service.")
    parser.add_argument("url")
    parser.add_argument("--task", choices=tuple(PATHS), default="caption")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--rate", type=float, help="requests a second, in place of clients")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--warm", type=float, default=1.0, help="seconds that do not count")
    args = parser.parse_args()
    files = pictures()
    requests = [request(args.url, PATHS[args.task], picture) for picture in files]

    async def run() -> Outcomes:
        await closed(args.url, requests, min(args.clients, 8), args.warm)
        if args.rate:
            return await opened(args.url, requests, args.rate, args.seconds)
        return await closed(args.url, requests, args.clients, args.seconds)

    json.dump(summary(asyncio.run(run()), args.seconds), sys.stdout)


if __name__ == "__main__":
    main()

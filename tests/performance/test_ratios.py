"""How much the service costs, as ratios to a yardstick run in turns on the same machine.

`make bench-regression` runs these alone; pytest-benchmark is off beside other tests. A ratio that
was meant to change goes into baseline.json with MMLLM_UPDATE_BASELINE=1.
"""

import asyncio
import io
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from mmllm.runtime import model as model_lib
from mmllm.serve import metrics
from mmllm.serve import settings as settings_lib
from mmllm.serve.engine import service
from mmllm.serve.guard import pictures

BASELINE = Path(__file__).with_name("baseline.json")
SAMPLE = Path(model_lib.__file__).parents[1] / "sample"
ROUNDS = 40
# Minima of runs in turns repeat within .05 on a quiet machine and a third on a busy one: twice as
# much is a change, whatever else runs.
MAX_GROWTH = 2.0

pytestmark = pytest.mark.slow


class Regression(AssertionError):
    """A ratio that is too far above its baseline."""


def compare(name: str, ratio: float) -> None:
    """Holds a ratio against the baseline, or writes it there.

    Raises:
      Regression: it grew by more than MAX_GROWTH.
    """
    known = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    if os.environ.get("MMLLM_UPDATE_BASELINE"):
        text = json.dumps({**known, name: round(ratio, 4)}, indent=1, sort_keys=True)
        BASELINE.write_text(text + "\n")
        return
    if ratio > known[name] * MAX_GROWTH:
        raise Regression(f"{name}: {ratio:.3f} times its yardstick, the baseline is {known[name]}")


def ratio_of(benchmark, target: Callable[[], object], yardstick: Callable[[], object]) -> float:
    """The fastest of ROUNDS runs of a target over the fastest of a yardstick, run in turns."""
    if benchmark.disabled or os.environ.get("MMLLM_TYPECHECK") != "0":
        pytest.skip("not beside other tests, and without run-time checks: make bench-regression")
    times = []

    def before() -> None:
        start = time.perf_counter()
        yardstick()
        times.append(time.perf_counter() - start)

    target()
    benchmark.pedantic(target, setup=before, rounds=ROUNDS)
    ratio = benchmark.stats.stats.min / min(times)
    benchmark.extra_info["ratio"] = round(ratio, 4)
    return ratio


@pytest.fixture(scope="module")
def model() -> model_lib.MobileMultiModalLLM:
    return model_lib.MobileMultiModalLLM.from_pretrained("nano", threads=1)


@pytest.fixture(scope="module")
def uploads() -> Iterator[bytes]:
    """Different files, without an end: no cache answers for the model."""
    image = Image.open(SAMPLE / "drawing-00.png").convert("RGB")

    def made() -> Iterator[bytes]:
        for number in itertools.count():
            image.putpixel((0, 0), (number % 256, number // 256 % 256, 77))
            file = io.BytesIO()
            image.save(file, "PNG", compress_level=1)
            yield file.getvalue()

    return made()


class Serving:
    """A started service, called from outside its event loop."""

    def __init__(self, settings: settings_lib.Settings) -> None:
        self.runner = asyncio.Runner()
        self.service = service.Service(settings, metrics.Metrics())
        self.runner.run(self.service.start())

    def caption(self, upload: bytes) -> str:
        return self.runner.run(self.service.caption(upload)).text


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    path = tmp_path_factory.mktemp("index") / "index.sqlite"
    made = Serving(settings_lib.Settings(engine_threads=1, index_path=path, drain_s=1.0))
    yield made
    made.runner.run(made.service.close())
    made.runner.close()


def test_a_caption_costs_little_more_than_the_model(benchmark, serving, model, uploads):
    compare(
        "caption over the model's own",
        ratio_of(
            benchmark,
            lambda: serving.caption(next(uploads)),
            lambda: model.caption(next(uploads)),
        ),
    )


def test_an_answer_from_the_cache_costs_little(benchmark, serving, model, uploads):
    same = next(uploads)
    compare(
        "cached caption over the model's own",
        ratio_of(benchmark, lambda: serving.caption(same), lambda: model.caption(next(uploads))),
    )


def test_checking_a_picture_costs_little_more_than_decoding_it(benchmark, uploads):
    limits = pictures.limits_of(settings_lib.Settings())
    compare(
        "checked picture over a decoded one",
        ratio_of(
            benchmark,
            lambda: pictures.decode(next(uploads), limits),
            lambda: Image.open(io.BytesIO(next(uploads))).convert("RGB").load(),
        ),
    )


def test_a_planted_slowdown_is_caught(benchmark, serving, model, uploads):
    start = time.perf_counter()
    model.caption(next(uploads))
    planted = 2 * (time.perf_counter() - start)

    def slow() -> str:
        time.sleep(planted)
        return serving.caption(next(uploads))

    ratio = ratio_of(benchmark, slow, lambda: model.caption(next(uploads)))
    if not os.environ.get("MMLLM_UPDATE_BASELINE"):
        with pytest.raises(Regression, match="times its yardstick"):
            compare("caption over the model's own", ratio)

"""A model bundle as the service needs it: what it is, and how to make a warm model of it.

The pool opens one when it starts or reloads, and hands `Bundle.maker` to its workers.
"""

import importlib.util
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from mmllm import bundle as bundle_lib
from mmllm.common import config as config_lib
from mmllm.data import tokenizer as tokenizer_lib
from mmllm.runtime import model as model_lib
from mmllm.runtime.engines import registry

Model = model_lib.MobileMultiModalLLM

NEEDS = {"litert": ("ai_edge_litert",), "jax": ("jax", "flax")}
WARM_ROWS = 8  # the second of the sizes that the engine "jax" compiles

log = logging.getLogger(__name__)


class Bundle(NamedTuple):
    """A verified bundle.

    Attributes:
      folder: where it lies.
      name: its own.
      fingerprint: changes whenever the model does.
      languages: of captions.
      config: sizes of the model.
      tokenizer: for checks before a request waits; safe to share between threads.
      engines: the chosen one, then any other that could run it here.
    """

    folder: Path
    name: str
    fingerprint: str
    languages: tuple[str, ...]
    config: config_lib.ModelConfig
    tokenizer: tokenizer_lib.Tokenizer
    engines: tuple[str, ...]

    def maker(self, engine: str) -> Callable[[], Model]:
        """What makes a warm model, once a call; those of "jax", which threads may share, once.

        The returned function raises ValueError if the folder no longer holds this bundle.
        """
        lock = threading.Lock()
        shared: list[Model] = []

        def make() -> Model:
            if engine != "jax":
                return self._made(engine)
            with lock:
                if not shared:
                    shared.append(self._made(engine))
                return shared[0]

        return make

    def _made(self, engine: str) -> Model:
        threads = 1 if engine == "litert" else None
        model = Model.from_pretrained(self.folder, engine, threads)
        if model.fingerprint != self.fingerprint:
            raise ValueError(f"bundle {self.name} was changed while it served: reload it")
        warm(model)
        return model


def open_bundle(name_or_path: str, engine: str | None = None) -> Bundle:
    """Verifies a bundle.

    Args:
      name_or_path: a shipped name or a folder.
      engine: the chosen one; by default the bundle's best.

    Raises:
      FileNotFoundError: no such bundle, or a part of it is missing.
      ValueError: a damaged bundle, or one without a file for the engine.
    """
    folder = model_lib.locate(name_or_path)
    manifest, config = bundle_lib.open_verified(folder)
    chosen = registry.engine_of(manifest, engine)
    others = [
        other
        for other in registry.ENGINES
        if other != chosen and _runs(other) and _has_file(manifest["files"], other)
    ]
    return Bundle(
        folder,
        manifest["name"],
        bundle_lib.fingerprint(manifest),
        tuple(manifest["languages"]),
        config,
        tokenizer_lib.Tokenizer(folder / bundle_lib.TOKENIZER),
        (chosen, *others),
    )


def warm(model: Model) -> None:
    """Runs every task once, so that no request pays for a first time.

    Raises:
      Exception: what the engine raised; such a model must not serve.
    """
    picture = Image.new("RGB", (160, 48), "white")
    ImageDraw.Draw(picture).text((8, 16), "warm", fill="black")
    longest = " ".join(["a"] * (model.config.max_text // 2))
    sizes = (1,) if model.engine.name == "litert" else (1, WARM_ROWS)
    for rows in sizes:
        model.scored_captions([picture] * rows, model.languages[0])
        model.scored_answers([picture] * rows, ["what is it?"] * rows)
        model.scored_lines([picture] * rows)
        vectors = model.embed_images([picture] * rows)
        texts = model.embed_texts(["a", longest][:rows])
        if not (np.isfinite(vectors).all() and np.isfinite(texts).all()):
            raise ValueError("the model embeds as what is not a number")
    model.embed_texts([longest])
    model.scored_captions([picture], model.languages[0], beam=2)


def _runs(engine: str) -> bool:
    return all(importlib.util.find_spec(package) is not None for package in NEEDS[engine])


def _has_file(files: dict[str, str], engine: str) -> bool:
    return engine == "jax" or bundle_lib.LITERT in files

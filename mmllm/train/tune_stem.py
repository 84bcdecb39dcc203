"""Tunes the stem's last blocks on the names of drawings, before its cells are cached for good.

The blocks up to `TRUNK` stay as ImageNet left them, and their features are cached once for every
view; what is trained is the rest of the stem, the image embedding, and the bank
of captions it is compared with. `train.cache` then computes the cells with the tuned stem. The run
learns embedding and bank anew: on the tuned cells they come out better than those tuned with them.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmllm.common.config import Config
from mmllm.common.types import Array, Float, Params
from mmllm.data import pipeline
from mmllm.models import efficientnet_lite0
from mmllm.models import mmllm as model_lib
from mmllm.train import bank as bank_lib
from mmllm.train import checkpoint, losses, optimizer
from mmllm.train.state import TrainState

TRUNK = "14x14x112"
HEAD_BATCH = 256
HEAD_VIEWS = 3
HEAD_LEARNING_RATE = 2e-3
RESIDUAL_KEEP = 0.5
CHECKPOINT_EVERY = 200  # steps
Report = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Named:
    """Pictures with the places of their names in the bank.

    Attributes:
      cells: per view (pictures, side, side, channels) float16, the plain one first.
      label: (pictures,) place in the bank.
      weight: (pictures,) sampling weight.
    """

    cells: Sequence[np.ndarray]
    label: np.ndarray
    weight: np.ndarray


@dataclasses.dataclass(frozen=True)
class DrawNamed(grain.transforms.RandomMap):
    """Step number + generator -> cells and labels of `batch` pictures over all sources."""

    sources: Sequence[Named]
    batch: int

    # pyrefly: ignore[bad-override]  # The abstract method has no return type, so None is inferred.
    def random_map(self, element: Any, rng: np.random.Generator) -> pipeline.Batch:
        del element  # The generator is already the step's own.
        weight = np.concatenate([source.weight for source in self.sources])
        first = np.cumsum([0, *(len(source.label) for source in self.sources)])
        pick = rng.choice(len(weight), self.batch, p=weight / weight.sum())
        cells, labels = [], []
        for place, number in zip(np.searchsorted(first, pick, "right") - 1, pick, strict=True):
            source, row = self.sources[place], number - first[place]
            cells.append(source.cells[rng.integers(len(source.cells))][row])
            labels.append(source.label[row])
        return {"cells": np.stack(cells), "label": np.array(labels, np.int32)}


def draws(sources: Sequence[Named], batch: int, seed: int) -> grain.DatasetIterator:
    """An endless, checkpointable iterator over batches of `DrawNamed`."""
    dataset = grain.MapDataset.range(1).repeat().seed(seed).random_map(DrawNamed(sources, batch))
    return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)))


def tail() -> efficientnet_lite0.EfficientNetLite0:
    """The part of the stem that is tuned."""
    return efficientnet_lite0.EfficientNetLite0(tap="7x7x320", entry=TRUNK)


def split_stem(stem: Params) -> tuple[Params, Params]:
    """Parameters of the whole stem -> (up to the trunk's tap, behind it)."""
    kept = {"stem", *efficientnet_lite0.block_names(TRUNK)}
    return (
        {name: value for name, value in stem.items() if name in kept},
        {name: value for name, value in stem.items() if name not in kept},
    )


def init_params(
    config: Config, stem: Params, affine: dict[str, np.ndarray], bank_teacher: np.ndarray
) -> Params:
    """{"tail", "stem_affine", "image_embedding", "bank"}: what tuning trains."""
    model_key, bank_key = jax.random.split(jax.random.key(config.seed))
    model = model_lib.init_params(config.model, model_key)
    bank = bank_lib.CaptionBank(len(bank_teacher), config.model.embed_dim)
    params = bank.init(
        bank_key, jnp.asarray(bank_teacher), jnp.ones(len(bank_teacher)), method="touch"
    )
    return {
        "tail": split_stem(stem)[1],
        "stem_affine": {name: jnp.asarray(value) for name, value in affine.items()},
        "image_embedding": model["image_embedding"],
        "bank": dict(params["params"]),
    }


def make_step(
    config: Config, tx: optax.GradientTransformation, *, from_trunk: bool
) -> Callable[[TrainState, Any, jax.Array], tuple[TrainState, Float[Array, ""]]]:
    """A step on trunk features, or on cells of the stem as it is (`from_trunk` false).

    The loss is the cross entropy of each picture over the names of the bank.
    """
    model, stem = model_lib.build(config.model), tail()

    def step(
        state: TrainState, batch: Any, bank_teacher: jax.Array
    ) -> tuple[TrainState, Float[Array, ""]]:
        key = jax.random.fold_in(jax.random.key(config.seed + 2), state.step)
        dropout_key, bank_key = jax.random.split(key)

        def loss_of(params: Params) -> Float[Array, ""]:
            cells = batch["cells"].astype(jnp.float32)
            if from_trunk:
                cells = jnp.asarray(stem.apply({"params": params["tail"]}, cells))
            held = {name: params[name] for name in ("stem_affine", "image_embedding")}
            embedding: Any = model.apply(
                {"params": held},
                cells,
                train=True,
                rngs={"dropout": dropout_key},
                method="embed_cells",
            )
            return jnp.mean(
                losses.bank_loss(
                    params["bank"], embedding, batch["label"], bank_teacher, RESIDUAL_KEEP, bank_key
                )
            )

        loss, grads = jax.value_and_grad(loss_of)(state.params)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return TrainState(jnp.add(state.step, 1), params, opt_state), loss

    return step


def train_head(
    config: Config,
    params: Params,
    cells: Sequence[Named],
    bank_teacher: np.ndarray,
    report: Report = print,
) -> Params:
    """Trains all but the tail on cells of a frozen stem: `config.tune.head_steps`, seconds."""
    tx = adam(HEAD_LEARNING_RATE, config.tune.head_steps)
    # Copied, as the steps donate them; without the tail, which weight decay would shrink.
    head = {name: jax.tree.map(jnp.array, params[name]) for name in params if name != "tail"}
    state = TrainState(jnp.zeros((), jnp.int32), head, tx.init(head))
    step = jax.jit(make_step(config, tx, from_trunk=False), donate_argnums=0)
    iterator = draws(cells, HEAD_BATCH, config.seed)
    steps = config.tune.head_steps
    head = run_steps(state, step, iterator, bank_teacher, steps, report, "head").params
    return {**head, "tail": params["tail"]}


def tune(
    config: Config,
    params: Params,
    cells: Sequence[Named],
    trunk: Sequence[Named],
    bank_teacher: np.ndarray,
    workdir: Path,
    report: Report = print,
) -> Params:
    """Trains the image embedding on cells of the untuned stem, then the tail with it.

    Args:
      config: `config.tune` holds steps, batch and learning rate.
      params: of `init_params`.
      cells: cells of the untuned stem, a few views; for the first phase, which takes seconds.
      trunk: trunk features of all views.
      bank_teacher: (bank, 384) sentence embeddings.
      workdir: for checkpoints; an interrupted second phase goes on from the newest.
      report: takes the progress lines.

    Returns:
      The tuned parameters.

    Raises:
      FloatingPointError: a loss that is not finite.
      OSError: a checkpoint could not be written.
    """
    setting = config.tune
    checkpoints = checkpoint.Checkpoints(workdir, keep=1)
    try:
        if not checkpoints.latest_step:
            params = train_head(config, params, cells, bank_teacher, report)
        tx = adam(setting.learning_rate, setting.steps)
        state = TrainState(jnp.zeros((), jnp.int32), params, tx.init(params))
        iterator = draws(trunk, setting.batch, config.seed + 1)
        if checkpoints.latest_step:
            state = checkpoints.restore(state, iterator)
            report(f"stem: resumed from step {int(state.step)}")
        step = jax.jit(make_step(config, tx, from_trunk=True), donate_argnums=0)
        state = run_steps(
            state, step, iterator, bank_teacher, setting.steps, report, "stem", checkpoints
        )
    finally:
        checkpoints.close()
    return jax.device_get(state.params)


def adam(peak: float, steps: int) -> optax.GradientTransformation:
    """AdamW with a short warm-up and a cosine."""
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, peak, max(1, steps // 20), max(steps, 2), 0.01 * peak
    )
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(schedule, b2=0.98, weight_decay=0.05, mask=optimizer.decays),
    )


def run_steps(
    state: TrainState,
    step: Callable[..., tuple[TrainState, jax.Array]],
    iterator: Any,
    held: Any,
    last: int,
    report: Report,
    phase: str,
    checkpoints: checkpoint.Checkpoints | None = None,
) -> TrainState:
    """Steps of a state, a batch and what is `held`, up to `last`; a line and a checkpoint each 200.

    Raises:
      FloatingPointError: a loss that is not finite.
    """
    total, since, start = 0.0, int(state.step), time.perf_counter()
    for number in range(since + 1, last + 1):
        state, loss = step(state, next(iterator), held)
        total += float(loss)
        if not np.isfinite(total):
            raise FloatingPointError(
                f"{phase} step {number}: the loss is not finite; lower its learning rate"
            )
        if number % CHECKPOINT_EVERY == 0 or number == last:
            pace = (time.perf_counter() - start) / (number - int(since))
            mean, total, since, start = total / (number - since), 0.0, number, time.perf_counter()
            report(
                f"{phase}: step {number}/{last}  loss {mean:.3f}  "
                f"{pace * (last - number) / 60:.0f} min left"
            )
            if checkpoints is not None:
                checkpoints.save(state, iterator)
    return state

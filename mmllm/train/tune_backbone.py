"""Tunes the backbone's last blocks on the names of drawings, before its features are cached for good.

The blocks up to `FROZEN_LEVEL` stay as ImageNet left them, and their features are cached once for every
view; what is trained is the rest of the backbone, the image embedding, and the prototypes
of captions it is compared with. `train.cache` then computes the features with the tuned backbone. The run
learns embedding and prototypes anew: on the tuned features they come out better than those tuned with them.
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
from mmllm.train import checkpoint, losses, optimizer
from mmllm.train import prototypes as prototypes_lib
from mmllm.train.state import TrainState

FROZEN_LEVEL = "14x14x112"
HEAD_BATCH = 256
HEAD_VIEWS = 3
HEAD_LEARNING_RATE = 2e-3
RESIDUAL_KEEP = 0.5
CHECKPOINT_EVERY = 200  # steps
Report = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Named:
    """Pictures with the places of their names in the prototypes.

    Attributes:
      features: per view (pictures, side, side, channels) float16, the plain one first.
      label: (pictures,) place in the prototypes.
      weight: (pictures,) sampling weight.
    """

    features: Sequence[np.ndarray]
    label: np.ndarray
    weight: np.ndarray


@dataclasses.dataclass(frozen=True)
class DrawNamed(grain.transforms.RandomMap):
    """Step number + generator -> features and labels of `batch` pictures over all sources."""

    sources: Sequence[Named]
    batch: int

    # pyrefly: ignore[bad-override]  # The abstract method has no return type, so None is inferred.
    def random_map(self, element: Any, rng: np.random.Generator) -> pipeline.Batch:
        del element  # The generator is already the step's own.
        weight = np.concatenate([source.weight for source in self.sources])
        first = np.cumsum([0, *(len(source.label) for source in self.sources)])
        pick = rng.choice(len(weight), self.batch, p=weight / weight.sum())
        features, labels = [], []
        for place, number in zip(np.searchsorted(first, pick, "right") - 1, pick, strict=True):
            source, row = self.sources[place], number - first[place]
            features.append(source.features[rng.integers(len(source.features))][row])
            labels.append(source.label[row])
        return {"features": np.stack(features), "label": np.array(labels, np.int32)}


def draws(sources: Sequence[Named], batch: int, seed: int) -> grain.DatasetIterator:
    """An endless, checkpointable iterator over batches of `DrawNamed`."""
    dataset = grain.MapDataset.range(1).repeat().seed(seed).random_map(DrawNamed(sources, batch))
    return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)))


def trainable() -> efficientnet_lite0.EfficientNetLite0:
    """The part of the backbone that is tuned."""
    return efficientnet_lite0.EfficientNetLite0(level="7x7x320", entry=FROZEN_LEVEL)


def split_backbone(backbone: Params) -> tuple[Params, Params]:
    """Parameters of the whole backbone -> (up to the frozen's level, behind it)."""
    kept = {"stem", *efficientnet_lite0.block_names(FROZEN_LEVEL)}
    return (
        {name: value for name, value in backbone.items() if name in kept},
        {name: value for name, value in backbone.items() if name not in kept},
    )


def init_params(
    config: Config, backbone: Params, affine: dict[str, np.ndarray], prototype_sentences: np.ndarray
) -> Params:
    """{"trainable", "feature_affine", "image_embedding", "prototypes"}: what tuning trains."""
    model_key, prototype_key = jax.random.split(jax.random.key(config.seed))
    model = model_lib.init_params(config.model, model_key)
    prototypes = prototypes_lib.TextPrototypes(len(prototype_sentences), config.model.embed_dim)
    params = prototypes.init(
        prototype_key,
        jnp.asarray(prototype_sentences),
        jnp.ones(len(prototype_sentences)),
        method="touch",
    )
    return {
        "trainable": split_backbone(backbone)[1],
        "feature_affine": {name: jnp.asarray(value) for name, value in affine.items()},
        "image_embedding": model["image_embedding"],
        "prototypes": dict(params["params"]),
    }


def make_step(
    config: Config, tx: optax.GradientTransformation, *, from_frozen: bool
) -> Callable[[TrainState, Any, jax.Array], tuple[TrainState, Float[Array, ""]]]:
    """A step on frozen features, or on features of the backbone as it is (`from_frozen` false).

    The loss is the cross entropy of each picture over the names of the prototypes.
    """
    model, backbone = model_lib.build(config.model), trainable()

    def step(
        state: TrainState, batch: Any, prototype_sentences: jax.Array
    ) -> tuple[TrainState, Float[Array, ""]]:
        key = jax.random.fold_in(jax.random.key(config.seed + 2), state.step)
        dropout_key, prototype_key = jax.random.split(key)

        def loss_of(params: Params) -> Float[Array, ""]:
            features = batch["features"].astype(jnp.float32)
            if from_frozen:
                features = jnp.asarray(backbone.apply({"params": params["trainable"]}, features))
            held = {name: params[name] for name in ("feature_affine", "image_embedding")}
            embedding: Any = model.apply(
                {"params": held},
                features,
                train=True,
                rngs={"dropout": dropout_key},
                method="embed_features",
            )
            return jnp.mean(
                losses.prototype_loss(
                    params["prototypes"],
                    embedding,
                    batch["label"],
                    prototype_sentences,
                    RESIDUAL_KEEP,
                    prototype_key,
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
    features: Sequence[Named],
    prototype_sentences: np.ndarray,
    report: Report = print,
) -> Params:
    """Trains all but the trainable on features of a frozen backbone: `config.tune.head_steps`, seconds."""
    tx = adam(HEAD_LEARNING_RATE, config.tune.head_steps)
    # Copied, as the steps donate them; without the trainable, which weight decay would shrink.
    head = {name: jax.tree.map(jnp.array, params[name]) for name in params if name != "trainable"}
    state = TrainState(jnp.zeros((), jnp.int32), head, tx.init(head))
    step = jax.jit(make_step(config, tx, from_frozen=False), donate_argnums=0)
    iterator = draws(features, HEAD_BATCH, config.seed)
    steps = config.tune.head_steps
    head = run_steps(state, step, iterator, prototype_sentences, steps, report, "head").params
    return {**head, "trainable": params["trainable"]}


def tune(
    config: Config,
    params: Params,
    features: Sequence[Named],
    frozen: Sequence[Named],
    prototype_sentences: np.ndarray,
    workdir: Path,
    report: Report = print,
) -> Params:
    """Trains the image embedding on features of the untuned backbone, then the trainable with it.

    Args:
      config: `config.tune` holds steps, batch and learning rate.
      params: of `init_params`.
      features: features of the untuned backbone, a few views; for the first phase, which takes seconds.
      frozen: frozen features of all views.
      prototype_sentences: (prototypes, 384) sentence embeddings.
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
            params = train_head(config, params, features, prototype_sentences, report)
        tx = adam(setting.learning_rate, setting.steps)
        state = TrainState(jnp.zeros((), jnp.int32), params, tx.init(params))
        iterator = draws(frozen, setting.batch, config.seed + 1)
        if checkpoints.latest_step:
            state = checkpoints.restore(state, iterator)
            report(f"backbone: resumed from step {int(state.step)}")
        step = jax.jit(make_step(config, tx, from_frozen=True), donate_argnums=0)
        state = run_steps(
            state,
            step,
            iterator,
            prototype_sentences,
            setting.steps,
            report,
            "backbone",
            checkpoints,
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

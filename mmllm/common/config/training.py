"""The sections of a config that say how something is trained; units are in configs/base.py.

A field that came after the first release has a default here, the value that means "as before".
"""

import dataclasses
from typing import Any


def check(holds: bool, message: str) -> None:
    """Raises a ValueError with the message unless something holds."""
    if not holds:
        raise ValueError(message)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitConfig:
    """What `train.fit` and `train.optimizer` need to know of any loop."""

    steps: int
    learning_rate: float
    warmup_share: float
    final_rate: float
    weight_decay: float
    b2: float
    clip_norm: float
    log_every: int
    checkpoint_every: int

    def _check(self, section: str) -> None:
        check(self.steps >= 0, f"{section}.steps must be 0 (left out) or more, got {self.steps}")
        check(
            self.learning_rate > 0,
            f"{section}.learning_rate must be positive, got {self.learning_rate}",
        )
        for name in ("warmup_share", "final_rate"):
            value = getattr(self, name)
            check(0 <= value <= 1, f"{section}.{name} must be between 0 and 1, got {value}")
        for name in ("weight_decay", "clip_norm", "checkpoint_every"):
            value = getattr(self, name)
            check(value >= 0, f"{section}.{name} must be 0 (none) or more, got {value}")
        check(self.log_every > 0, f"{section}.log_every must be positive, got {self.log_every}")

    def _check_unsaved(self, section: str) -> None:
        """For a loop of minutes, which begins anew when it is interrupted."""
        check(
            self.checkpoint_every == 0,
            f"{section}.checkpoint_every must be 0, it is never saved; got {self.checkpoint_every}",
        )

    def warmup(self, steps: int) -> int:
        """Steps in which the learning rate rises, of a loop of `steps`."""
        return max(1, int(steps * self.warmup_share)) if self.warmup_share else 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class TuneConfig(FitConfig):
    """How the backbone's last blocks are tuned."""

    batch: int
    residual_keep: float = 0.5
    warmup_share: float = 0.05
    final_rate: float = 0.01
    weight_decay: float = 0.05
    b2: float = 0.98
    clip_norm: float = 1.0
    log_every: int = 200
    checkpoint_every: int = 200
    head_steps: int
    head_batch: int = 256
    head_views: int = 3
    head_learning_rate: float = 2e-3

    def __post_init__(self) -> None:
        self._check("tune")
        for name in ("head_steps", "head_batch", "head_views", "batch"):
            value = getattr(self, name)
            check(value > 0, f"tune.{name} must be positive, got {value}")
        check(
            0 <= self.residual_keep <= 1,
            f"tune.residual_keep must be between 0 and 1, got {self.residual_keep}",
        )

    @property
    def head(self) -> FitConfig:
        """The loop of the image embedding alone."""
        # All else as in the tuning that follows, so that one section says both.
        shared = (field.name for field in dataclasses.fields(FitConfig))
        values: dict[str, Any] = {name: getattr(self, name) for name in shared}
        values |= {"steps": self.head_steps, "learning_rate": self.head_learning_rate}
        return FitConfig(**values | {"checkpoint_every": 0})  # it takes seconds


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig(FitConfig):
    """The run itself: optimizer, validation, mesh and checkpoints."""

    warmup_steps: int
    warmup_share: float = 0.0
    final_rate: float = 0.01
    keep_checkpoints: int
    mesh_data: int
    mesh_model: int
    prefetch: int
    statistics_pictures: int = 4096
    validate_every: int = 0
    validation_batches: int = 8
    validation_pictures: int = 512
    patience: int = 0

    def __post_init__(self) -> None:
        self._check("train")
        for name in ("warmup_steps", "validate_every", "patience"):
            value = getattr(self, name)
            check(value >= 0, f"train.{name} must be 0 (none) or more, got {value}")
        for name in ("checkpoint_every", "statistics_pictures", "validation_batches"):
            value = getattr(self, name)
            check(value > 0, f"train.{name} must be positive, got {value}")
        # One way to say it: the fields of FitConfig would allow two.
        check(
            self.warmup_share == 0,
            f"train.warmup_share must be 0, got {self.warmup_share}: use train.warmup_steps",
        )
        check(
            bool(self.validate_every) or not self.patience,
            f"train.patience counts validations, got {self.patience} without any: set "
            "train.validate_every",
        )

    def warmup(self, steps: int) -> int:
        """Steps in which the learning rate rises, whatever the length of the run."""
        return self.warmup_steps


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlignConfig(FitConfig):
    """How the text tower is aligned at the end."""

    batch: int
    word_weight: float
    warmup_share: float = 0.05
    final_rate: float = 0.0
    weight_decay: float = 0.01
    b2: float = 0.98
    clip_norm: float = 1.0
    log_every: int = 250
    checkpoint_every: int = 0

    def __post_init__(self) -> None:
        self._check("align")
        self._check_unsaved("align")
        # Half of a batch is captions, half dictionary words.
        check(self.batch > 1, f"align.batch must be at least 2, got {self.batch}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegainConfig(FitConfig):
    """How prototypes are fitted to a finished model, for a run regained from its bundle."""

    steps: int = 3_000
    pictures: int = 256
    learning_rate: float = 1e-2
    warmup_share: float = 0.0
    final_rate: float = 0.0
    weight_decay: float = 0.0
    b2: float = 0.98
    clip_norm: float = 0.0
    log_every: int = 500
    checkpoint_every: int = 0

    def __post_init__(self) -> None:
        self._check("regain")
        self._check_unsaved("regain")
        check(self.pictures > 0, f"regain.pictures must be positive, got {self.pictures}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReconstructionConfig(FitConfig):
    """How the backbone's last blocks are trained on their grids."""

    steps: int = 0
    batch: int = 64
    learning_rate: float = 1e-3
    warmup_share: float = 0.05
    final_rate: float = 0.01
    weight_decay: float = 0.05
    b2: float = 0.98
    clip_norm: float = 1.0
    log_every: int = 200
    checkpoint_every: int = 200

    def __post_init__(self) -> None:
        self._check("quant.reconstruction")
        check(self.batch > 0, f"quant.reconstruction.batch must be positive, got {self.batch}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CalibrationConfig:
    """How the static ranges of activations are found."""

    batches: int = 4
    sample: int = 20_000

    def __post_init__(self) -> None:
        for name in ("batches", "sample"):
            value = getattr(self, name)
            check(value > 0, f"quant.calibration.{name} must be positive, got {value}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuantConfig:
    """How a finished run is quantized and trained on."""

    start: str
    rules: tuple[str, ...]
    scale_start: str
    share: float = 1.0  # runs from before this field rounded in every step
    scale_rate: float
    freeze_from: float
    temperature: float
    distill_logits: float
    distill_lines: float
    distill_embeddings: float
    reconstruction: ReconstructionConfig = ReconstructionConfig()
    calibration: CalibrationConfig = CalibrationConfig()

    def __post_init__(self) -> None:
        # Rules without a start would quantize random weights; a start alone changes nothing.
        check(
            bool(self.start) == bool(self.rules),
            f"quant.start and quant.rules must both be given or both be empty, got {self.start!r} "
            f"and {len(self.rules)} rules",
        )
        for name in ("scale_rate", "distill_logits", "distill_lines", "distill_embeddings"):
            value = getattr(self, name)
            check(value >= 0, f"quant.{name} must be 0 or more, got {value}")
        check(0 < self.share <= 1, f"quant.share must be above 0 and at most 1, got {self.share}")
        check(
            0 <= self.freeze_from <= 1,
            f"quant.freeze_from must be between 0 and 1, got {self.freeze_from}",
        )
        check(self.temperature > 0, f"quant.temperature must be positive, got {self.temperature}")

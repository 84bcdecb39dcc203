"""The sections of a config as frozen, checked dataclasses; configs/base.py says what they mean.

A field that came after the first release has a default here, the value that means "as before": so
what was stored without it still loads, and its digest stays (`parse.sha256`).
"""

import dataclasses
import math
import re
from collections.abc import Mapping

from mmllm.common.config import training
from mmllm.common.config.training import check

BACKBONES = ("efficientnet_lite0", "patch")
# Where EfficientNet-Lite0 may end -> side and channels of its feature map, at 224 pixels.
LEVELS = {"7x7x320": (7, 320), "14x14x112": (14, 112)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Sizes of the model; units and meanings in configs/base.py."""

    backbone: str
    level: str
    patch: int
    merge: int
    image_side: int
    line_height: int
    line_width: int
    line_stride: int
    width: int
    heads: int
    kv_heads: int
    mlp_ratio: int
    encoder_blocks: int
    decoder_blocks: int
    text_blocks: int
    head_width: int
    embed_dim: int
    vocab_size: int
    max_text: int
    charset_size: int
    feature_dropout: float

    def __post_init__(self) -> None:
        for name in ("patch", "merge", "line_stride", "width", "heads", "kv_heads"):
            check(
                getattr(self, name) > 0, f"model.{name} must be positive, got {getattr(self, name)}"
            )
        check(
            0.0 <= self.feature_dropout < 1.0,
            f"model.feature_dropout must be in [0, 1), got {self.feature_dropout}",
        )
        check(
            self.backbone in BACKBONES,
            f"model.backbone must be one of {BACKBONES}, got {self.backbone!r}",
        )
        check(
            self.level in LEVELS, f"model.level must be one of {tuple(LEVELS)}, got {self.level!r}"
        )
        check(self.width % 32 == 0, f"model.width must be a multiple of 32, got {self.width}")
        # Even, as rotary positions turn the values of a head in pairs.
        check(
            self.width % self.heads == 0 and (self.width // self.heads) % 2 == 0,
            f"model.heads must split width {self.width} into even parts, got {self.heads}",
        )
        # Grouped queries: as many heads share each key.
        check(
            self.heads % self.kv_heads == 0,
            f"model.kv_heads must divide heads {self.heads}, got {self.kv_heads}",
        )
        check(
            self.line_width % self.line_stride == 0,
            f"model.line_stride must divide line_width {self.line_width}, got {self.line_stride}",
        )
        check(
            self.backbone != "patch" or self.image_side % self.patch == 0,
            f"model.patch must divide image_side {self.image_side}, got {self.patch}",
        )
        check(
            self.backbone == "patch" or self.image_side == 224,
            f"model.image_side must be 224 with the {self.backbone} backbone, "
            f"got {self.image_side}",
        )

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.width // self.heads

    @property
    def feature_grid(self) -> int:
        """Features along one side of the backbone's output."""
        return self.image_side // self.patch if self.backbone == "patch" else LEVELS[self.level][0]

    @property
    def feature_channels(self) -> int:
        """Values that the backbone gives for one patch."""
        return self.patch**2 * 3 if self.backbone == "patch" else LEVELS[self.level][1]

    @property
    def grid(self) -> int:
        """Encoder tokens along one side of a picture."""
        # Rounded up: a border that fills no whole token is padded.
        return -(-self.feature_grid // self.merge)

    @property
    def prefix_length(self) -> int:
        """Tokens the decoder sees before the text: the grid and the image embedding."""
        return self.grid**2 + 1

    @property
    def line_columns(self) -> int:
        """Columns in which a line of text is read."""
        return self.line_width // self.line_stride


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What is cached and sampled; units and meanings in configs/base.py."""

    vocabulary: str
    views: Mapping[str, int] = dataclasses.field(default_factory=dict)
    crowded_weight: float
    decoder_tokens: int
    row_tokens: int
    name_tokens: int
    answer_tokens: int
    text_tokens: int
    line_chars: int
    dictionary_words: int
    limit: int | None

    def __post_init__(self) -> None:
        check(
            # It becomes the name of a folder.
            re.fullmatch(r"[a-z0-9][a-z0-9._-]*", self.vocabulary) is not None,
            "data.vocabulary must be a name of small letters, digits, dots, hyphens and "
            f"underscores, got {self.vocabulary!r}",
        )
        for name, count in self.views.items():
            check(count >= 0, f"data.views.{name} must be 0 or more, got {count}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """Examples of one step, by task; several texts share a picture."""

    captions: int
    names: int
    spoken: int
    questions: int
    lines: int
    texts: int

    def __post_init__(self) -> None:
        counts = dataclasses.asdict(self)
        for name, count in counts.items():
            check(count >= 0, f"batch.{name} must be 0 (left out) or more, got {count}")
        check(
            self.total > 0,
            f"one of batch.{', batch.'.join(counts)} must be above 0, got 0 for all",
        )

    @property
    def pictures(self) -> int:
        """Pictures that pass the encoder: the captioned ones first, then those with questions."""
        return self.captions + self.questions

    @property
    def total(self) -> int:
        """Examples of a batch."""
        return sum(dataclasses.astuple(self))


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrototypesConfig:
    """How many captions pictures are classified over; meanings in configs/base.py."""

    max_residuals: int = 16_384
    negatives: int = 0

    def __post_init__(self) -> None:
        for name in ("max_residuals", "negatives"):
            value = getattr(self, name)
            check(value >= 0, f"prototypes.{name} must be 0 or more, got {value}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weight of each loss in the sum."""

    caption: float
    name: float
    spoken: float
    spoken_noise: float
    vqa: float
    retrieval: float
    lines: float
    text_caption: float
    text_teacher: float
    residual_keep: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """One experiment."""

    name: str
    seed: int
    model: ModelConfig
    data: DataConfig
    mix: Mapping[str, float]
    batch: BatchConfig
    prototypes: PrototypesConfig = PrototypesConfig()
    loss: LossConfig
    tune: training.TuneConfig
    train: training.TrainConfig
    align: training.AlignConfig
    quant: training.QuantConfig
    regain: training.RegainConfig = training.RegainConfig()

    def __post_init__(self) -> None:
        for name, weight in self.mix.items():
            check(weight >= 0, f"mix.{name} must be 0 or more, got {weight}")
            check(math.isfinite(weight), f"mix.{name} must be finite, got {weight}")
        check(
            self.train.patience == 0 or self.quant.share == 1,
            "train.patience must be 0 where quant.share is below 1: a run could end before it "
            f"rounds; got {self.train.patience} with {self.quant.share}",
        )
        longest, row = self.data.decoder_tokens, self.data.row_tokens
        # Packed rows must hold the longest text, or it would never be trained on.
        check(
            longest <= row,
            f"data.row_tokens must be at least data.decoder_tokens ({longest}), got {row}",
        )
        short = self.data.name_tokens
        check(
            2 < short <= longest,
            f"data.name_tokens must be 3 to data.decoder_tokens ({longest}), got {short}",
        )
        level = self.model.level if self.model.backbone != "patch" else self.model.backbone
        # Tuning starts from cached 14x14x112 features and ends at the last level.
        check(
            self.tune.steps == 0 or level == "7x7x320",
            "tune.steps must be 0 unless the backbone ends at level 7x7x320, got "
            f"{self.tune.steps} with {level}",
        )

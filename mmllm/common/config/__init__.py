"""ConfigDict outside, frozen dataclasses inside."""

from mmllm.common.config.parse import (
    RENAMED,
    from_dict,
    resolve,
    sha256,
    stored_sha256,
    telling,
    to_dict,
)
from mmllm.common.config.sections import (
    BACKBONES,
    LEVELS,
    AlignConfig,
    Config,
    DataConfig,
    LossConfig,
    MixConfig,
    ModelConfig,
    QuantConfig,
    TrainConfig,
    TuneConfig,
)

__all__ = [
    "BACKBONES",
    "LEVELS",
    "RENAMED",
    "AlignConfig",
    "Config",
    "DataConfig",
    "LossConfig",
    "MixConfig",
    "ModelConfig",
    "QuantConfig",
    "TrainConfig",
    "TuneConfig",
    "from_dict",
    "resolve",
    "sha256",
    "stored_sha256",
    "telling",
    "to_dict",
]

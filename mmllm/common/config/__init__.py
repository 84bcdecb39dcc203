"""ConfigDict outside, frozen dataclasses inside."""

from mmllm.common.config.parse import from_dict, resolve, sha256, stored_sha256, to_dict
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
    "to_dict",
]

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
    BatchConfig,
    Config,
    DataConfig,
    LossConfig,
    ModelConfig,
    PrototypesConfig,
)
from mmllm.common.config.training import (
    AlignConfig,
    CalibrationConfig,
    FitConfig,
    QuantConfig,
    ReconstructionConfig,
    RegainConfig,
    TrainConfig,
    TuneConfig,
)

__all__ = [
    "BACKBONES",
    "LEVELS",
    "RENAMED",
    "AlignConfig",
    "BatchConfig",
    "CalibrationConfig",
    "Config",
    "DataConfig",
    "FitConfig",
    "LossConfig",
    "ModelConfig",
    "PrototypesConfig",
    "QuantConfig",
    "ReconstructionConfig",
    "RegainConfig",
    "TrainConfig",
    "TuneConfig",
    "from_dict",
    "resolve",
    "sha256",
    "stored_sha256",
    "telling",
    "to_dict",
]

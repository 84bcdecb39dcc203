"""Parameters x batch -> outputs."""

from mmllm.models.mmllm import Mmllm, build, init_params

__all__ = ["Mmllm", "build", "init_params"]

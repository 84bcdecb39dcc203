"""A small vision-language model that captions, reads, answers and retrieves.

The public names below are imported on first use, so that `import mmllm` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmllm.runtime.model import MobileMultiModalLLM, TextRegion

__version__ = "0.1.0"
__all__ = ["MobileMultiModalLLM", "TextRegion", "__version__"]

_HOMES = {
    "MobileMultiModalLLM": "mmllm.runtime.model",
    "TextRegion": "mmllm.runtime.model",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mmllm' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})

"""The file format of a trained model: what training writes and every runtime reads."""

from mmllm.bundle.files import (
    LITERT,
    MANIFEST,
    TOKENIZER,
    WEIGHTS,
    Bundle,
    add,
    fingerprint,
    load,
    open_verified,
    read_manifest,
    save,
    sha256_file,
    staged,
    verify,
)
from mmllm.bundle.quantized import SCALE

__all__ = [
    "LITERT",
    "MANIFEST",
    "SCALE",
    "TOKENIZER",
    "WEIGHTS",
    "Bundle",
    "add",
    "fingerprint",
    "load",
    "open_verified",
    "read_manifest",
    "save",
    "sha256_file",
    "staged",
    "verify",
]

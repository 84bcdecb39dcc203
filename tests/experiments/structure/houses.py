"""Small checkouts to measure."""

from collections.abc import Mapping
from pathlib import Path

from experiments.structure import source


def build(root: Path, files: Mapping[str, str]) -> dict[str, source.Module]:
    """Writes files below a folder and reads them as a checkout."""
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return source.read(root)

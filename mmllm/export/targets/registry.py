"""The targets of `mmllm export BUNDLE --to NAME`.

A new target is one folder beside this file and one entry of TARGETS. This module imports none of
them: the command line reads the names, and the runtime those of the files.
"""

import dataclasses
import importlib
from pathlib import Path
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Exporter(Protocol):
    """What a target's module has."""

    def export(self, folder: Path, bundle: Any) -> Path:
        """Writes the file of a `bundle.Bundle` into a folder, checked, whole or not at all."""
        ...

    def check(self, file: bytes, bundle: Any) -> None:
        """Raises a ValueError that names the weight of a file which is not the bundle's."""
        ...

    def budget(self, file: bytes) -> dict[str, Any]:
        """{"bytes", "limit", "rows" of {"part", "type", "weights", "bytes"}} of a file.

        Raises a ValueError if it has more bytes than the limit.
        """
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """A format that a bundle is exported to.

    Attributes:
      title: for people.
      file: its name in the bundle.
      module: an `Exporter`, imported when it is needed.
      extra: of this package, which installs what the module needs.
    """

    title: str
    file: str
    module: str
    extra: str

    def load(self) -> Exporter:
        """Imports the module.

        Raises:
          ModuleNotFoundError: something is missing; the message says what to install.
        """
        try:
            found: Any = importlib.import_module(self.module)
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"the {self.title} export needs {error.name}: pip install 'mmllm[{self.extra}]'",
                name=error.name,
            ) from error
        return found


TARGETS: dict[str, Target] = {
    "litert": Target(
        title="LiteRT",
        file="model.cpu.tflite",
        module="mmllm.export.targets.litert.target",
        extra="export",
    ),
}

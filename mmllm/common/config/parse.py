"""Plain values -> checked dataclasses, and back: the border between configs/ and the package.

`resolve` turns the plain dict of a config into the dataclasses of `sections`; unknown, missing or
ill-typed fields fail at start with the field's name.
"""

import dataclasses
import hashlib
import json
import typing
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from mmllm.common.config.sections import Config

# Fields that were removed, by dotted path, with what to use now.
RENAMED: dict[str, str] = {
    "model.stem": "model.backbone",
    "model.tap": "model.level",
    "model.activations": "quant.rules, whose third word says how a layer rounds its inputs",
    "model.float_blocks": "quant.rules, whose third word says how a layer rounds its inputs",
    "quant.stem_steps": "quant.reconstruction.steps",
    "quant.backbone_steps": "quant.reconstruction.steps",
    "quant.teach_logits": "quant.distill_logits",
    "quant.teach_lines": "quant.distill_lines",
    "quant.teach_embeddings": "quant.distill_embeddings",
    "data.english_share": "data.row_tokens",
    "data.targets_per_example": "data.answer_tokens",
    "data.emoji_views": "data.views.emoji",
    "data.stamp_views": "data.views.stamps",
    "data.scene_views": "data.views.composites",
    "mix.names": "batch.names",
    "mix.spoken": "batch.spoken",
    "mix.composites_vqa": "batch.questions",
    "mix.lines": "batch.lines",
    "mix.texts": "batch.texts",
}


@runtime_checkable
class ConvertibleToDict(Protocol):
    """What `resolve` needs of a ConfigDict, so that the runtime needs no ml_collections."""

    def to_dict(self) -> dict[str, Any]:
        """Nested dicts of plain values."""
        ...


def _accepts(kind: Any, value: Any) -> bool:
    if typing.get_origin(kind) is tuple:
        each = typing.get_args(kind)[0]
        return isinstance(value, list | tuple) and all(_accepts(each, part) for part in value)
    if typing.get_origin(kind) is Mapping:
        name, each = typing.get_args(kind)
        return isinstance(value, Mapping) and all(
            _accepts(name, key) and _accepts(each, part) for key, part in value.items()
        )
    allowed = typing.get_args(kind) or (kind,)
    # Python counts True as an int; in a config it is a mistake.
    if float in allowed and isinstance(value, int) and not isinstance(value, bool):
        return True
    return isinstance(value, allowed) and not (isinstance(value, bool) and bool not in allowed)


def _plain(kind: Any, value: Any) -> Any:
    """A value as a config holds it, so that one number has one digest: 1 and 1.0 are the same."""
    if typing.get_origin(kind) is Mapping:
        each = typing.get_args(kind)[1]
        return {key: _plain(each, part) for key, part in value.items()}
    if isinstance(value, list):  # JSON has no tuples
        return tuple(value)
    return float(value) if kind is float else value


def _refuse_renamed(path: str) -> None:
    if path in RENAMED:
        raise ValueError(f"config field {path} was replaced: use {RENAMED[path]}")


def _has_default(field: dataclasses.Field) -> bool:
    missing = dataclasses.MISSING
    return field.default is not missing or field.default_factory is not missing


def _default(field: dataclasses.Field) -> Any:
    factory = field.default_factory
    return field.default if factory is dataclasses.MISSING else factory()


T = typing.TypeVar("T")


def from_dict(cls: type[T], values: Mapping[str, Any], path: str = "") -> T:
    """Builds a frozen config dataclass from plain values.

    Args:
      cls: a dataclass of this module.
      values: field name -> value; nested mappings for nested dataclasses.
      path: dotted place in the whole config, for error messages.

    Raises:
      ValueError: an unknown or missing field, a value of the wrong type, or sizes that do not fit.
    """
    kinds = typing.get_type_hints(cls)
    for key in values:
        # Before "unknown": an old config should learn the new name, not that the old one is gone.
        _refuse_renamed(f"{path}{key}")
        if key not in kinds:
            allowed = ", ".join(sorted(kinds))
            raise ValueError(f"config field {path}{key} is unknown; allowed: {allowed}")
    optional = {
        field.name for field in dataclasses.fields(typing.cast(Any, cls)) if _has_default(field)
    }
    fields: dict[str, Any] = {}
    for key, kind in kinds.items():
        if key not in values and key in optional:
            continue
        if key not in values:
            raise ValueError(f"config field {path}{key} is missing")
        value = values[key]
        if dataclasses.is_dataclass(kind):
            if not isinstance(value, Mapping):
                raise ValueError(f"config field {path}{key} must be a section, got {value!r}")
            fields[key] = from_dict(typing.cast(type, kind), value, f"{path}{key}.")
            continue
        # Names of a mapping are free (corpora), so those that were fields are refused here.
        if isinstance(value, Mapping):
            for part in value:
                _refuse_renamed(f"{path}{key}.{part}")
        if _accepts(kind, value):
            fields[key] = _plain(kind, value)
        else:
            name = kind.__name__ if isinstance(kind, type) else kind
            raise ValueError(f"config field {path}{key} must be {name}, got {value!r}")
    return cls(**fields)


def resolve(values: Mapping[str, Any] | ConvertibleToDict) -> Config:
    """Turns a whole config (a ConfigDict or a plain dict) into a checked `Config`.

    Raises:
      ValueError: see `from_dict`.
    """
    plain = values.to_dict() if isinstance(values, ConvertibleToDict) else dict(values)
    return from_dict(Config, plain)


def to_dict(config: Any) -> dict[str, Any]:
    """Plain dict of a config dataclass, ready for JSON."""
    # Through JSON, so that a config and what a file holds of it compare equal: tuples are lists.
    return json.loads(json.dumps(dataclasses.asdict(config)))


def sha256(config: Any) -> str:
    """Hex digest of what a config says: the key of a run and of a row of results.

    A field at its dataclass default is left out, so a field that is added later, with a default
    that means "as before", changes no digest.
    """
    return stored_sha256(telling(config))


def stored_sha256(values: Mapping[str, Any]) -> str:
    """Hex digest of plain values as a file holds them, whatever fields this version knows."""
    # Sorted, without spaces: the digest must not tell the order in which fields were written.
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def telling(config: Any) -> dict[str, Any]:
    """Plain values of a config, less the fields that stand at their default."""
    plain = to_dict(config)
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            plain[field.name] = telling(value)
            if not plain[field.name]:  # a section that came later, at its defaults
                del plain[field.name]
        elif _has_default(field) and value == _default(field):
            del plain[field.name]
    return plain

"""What our own `config.json` says beyond the usual keys: field by field, what differs from a plain decoder.

An artifact carries such a file. Opening it runs no family's reading of a checkpoint, so a family may change
how it reads one without changing what artifacts are.
"""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, Final, get_args, get_type_hints

from rockledge.errors import CheckpointError
from rockledge.model.config import ModelConfig

KEY: Final = "rockledge"
"""The key of a `config.json` under which the fields stand."""

_PLAIN: Mapping[str, Any] = {
    "qkv_bias": False,
    "qk_norm": False,
    **{field.name: field.default for field in fields(ModelConfig) if field.default is not MISSING},
}
_COUNTS = ("windows", "unturned")  # lists of whole numbers; the other lists are of floats
_CHOICES = {
    name: get_args(get_type_hints(ModelConfig)[name]) for name in ("activation", "branch_norms", "pooling")
}


def fields_to_store(config: ModelConfig) -> dict[str, Any]:
    """The fields that differ from a plain decoder's, as JSON values."""
    own = {name: getattr(config, name) for name in _PLAIN}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in own.items()
        if value != _PLAIN[name]
    }


def stored_fields(stored: object) -> dict[str, Any]:
    """The fields of `ModelConfig` out of what stands under `KEY`; CheckpointError names the first that is
    wrong."""
    if not isinstance(stored, Mapping):
        raise CheckpointError(f"{KEY} in config.json is not an object; the file is damaged, fetch it again")
    return {**_PLAIN, **{name: _value(name, value) for name, value in stored.items()}}


def _value(name: str, value: Any) -> Any:
    """The value of one field, with its type checked; the type is that of the plain value."""
    if name not in _PLAIN:
        raise CheckpointError(
            f"{KEY} in config.json has {name[:60]!r}, which this version does not know; use the version of "
            "Rockledge that made the artifact, or a newer one"
        )
    plain = _PLAIN[name]
    if name in _CHOICES:
        good = isinstance(value, str) and value in _CHOICES[name]
    elif isinstance(plain, bool):
        good = isinstance(value, bool)
    elif isinstance(plain, int):
        good = _is_count(value)
    elif isinstance(plain, float):
        good = _is_real(value)
    else:
        good = isinstance(value, list) and all(map(_is_count if name in _COUNTS else _is_real, value))
    if not good:
        raise CheckpointError(
            f"{name} under {KEY} in config.json is {str(value)[:60]!r}, which it cannot be; "
            "the file is damaged, fetch it again"
        )
    if isinstance(plain, tuple):
        return tuple(value if name in _COUNTS else map(float, value))
    return float(value) if isinstance(plain, float) else value


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53


def _is_real(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300

"""Which layers attend to a sliding window, as Hugging Face and GGUF files say it."""

from collections.abc import Sequence
from typing import Any

from rockledge.errors import CheckpointError
from rockledge.model.gguf_values import GgufValues
from rockledge.model.hf_values import HfValues

FULL, SLIDING = "full_attention", "sliding_attention"


def hf_windows(
    values: HfValues, otherwise: Sequence[bool] | None = None, *, used: bool = True
) -> tuple[int, ...]:
    """The field `windows` out of `layer_types` and `sliding_window`, which counts if it is `used`.

    `otherwise` says which layers have the window where there are no `layer_types`; None for all.
    CheckpointError for types that are not known, and for windows without a size.
    """
    types = values.entries("layer_types", str, values.layers)
    size = values.get("sliding_window") if used else None
    values.ignore("sliding_window")
    if types is None:
        if size is None:
            return ()
        windowed = [True] * values.layers if otherwise is None else list(otherwise)
    else:
        if other := set(types) - {FULL, SLIDING}:
            raise CheckpointError(
                f"{values.place} has layers of type {min(other)[:60]!r}; supported are {FULL} and {SLIDING}"
            )
        windowed = [kind == SLIDING for kind in types]
    if not any(windowed):
        return ()
    if size is None:
        raise CheckpointError(
            f"layer_types in {values.place} has {SLIDING}, but no sliding_window is in use; "
            f"give the window, or {FULL}"
        )
    width = values.count("sliding_window")
    return tuple(width if one else 0 for one in windowed)


def narrow(fields: dict[str, Any], context: int) -> dict[str, Any]:
    """The same fields of `ModelConfig`, without windows that hide nothing within `context`, or the one among
    the fields. Where windows have a rotary base of their own, they stay, because they tell it."""
    if fields.get("window_rope_theta"):
        return fields
    context = fields.get("context", context)
    windows = tuple(width if width < context else 0 for width in fields.get("windows", ()))
    return {**fields, "windows": windows if any(windows) else ()}


def without_windows(values: HfValues, architecture: str) -> None:
    """Reads the keys of windows for an architecture that has none; CheckpointError where a layer is said to
    have one by its type."""
    values.ignore("use_sliding_window", "max_window_layers")
    if values.get("sliding_window") is not None:
        values.notes.append(
            f"{values.place} has sliding_window, which {architecture} does not use; it is ignored."
        )
    types = values.entries("layer_types", str, values.layers)
    if types is not None and set(types) != {FULL}:
        raise CheckpointError(
            f"{values.place} has layer_types other than {FULL}, which {architecture} does not have"
        )


def every(period: int, layers: int) -> list[bool]:
    """A window in every layer but each `period`-th; llama.cpp's `set_swa_pattern`: none for 1, all for 0."""
    return [period == 0 or number % period < period - 1 for number in range(layers)]


def gguf_windows(values: GgufValues, period: int = 0, size: int = 0) -> tuple[int, ...]:
    """The field `windows` out of `attention.sliding_window` and its pattern: one flag for each layer, or the
    period of layers without a window. `period` and `size` count where nothing is said."""
    size = values.count("attention.sliding_window", size, least=0)
    key = "attention.sliding_window_pattern"
    pattern = values.stored(key)
    if isinstance(pattern, list):
        if len(pattern) != values.layers or not all(isinstance(one, bool) for one in pattern):
            raise values.wrong(key, pattern, f"{values.layers} flags, one for each layer")
        windowed = pattern
    elif pattern is False:
        windowed = every(1, values.layers)
    else:
        windowed = every(values.count(key, period, least=0), values.layers)
    if pattern and not size and any(windowed):
        raise values.wrong(key, pattern, "a window in attention.sliding_window for it")
    return tuple(size if one else 0 for one in windowed) if size and any(windowed) else ()

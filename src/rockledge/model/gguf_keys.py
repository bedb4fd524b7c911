"""GGUF metadata that the reader does not use: which keys are harmless and which would change the results.

Every key of the architecture is read, or known to be harmless, or refused by name unless its value switches
it off. llama.cpp's src/llama-arch.cpp lists the keys, src/llama-model.cpp what it does with them.
"""

import re
from collections.abc import Mapping

from rockledge.errors import CheckpointError
from rockledge.model.gguf_values import GgufValues


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# How the model was trained.
_HARMLESS = _names("rope.scaling.finetuned")

# What would change the results, with the values that switch it off; false, 0 and lists of them always do.
_NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "tensor_data_layout": ("reference", "Meta AI original pth"),
    "attention.causal": (True,),
    "logit_scale": (1,),
    "residual_scale": (1,),
    "embedding_scale": (1,),
}

# Types of the tokenizer's metadata that are read. llama.cpp refuses another one too, such as the text "false"
# (get_kv in src/llama-model-loader.cpp).
_TYPES: tuple[tuple[str, type, str], ...] = (
    (r"tokenizer\.ggml\.add_(bos_token|space_prefix)", bool, "true or false"),
    (r"tokenizer\.ggml\.\w+_token_id", int, "a whole number"),
    (r"tokenizer\.ggml\.(model|pre)|tokenizer\.chat_template(\..+)?", str, "text"),
)

# Prefixes of keys that describe the file, its tokenizer or its parts.
_DESCRIPTIVE = ("general.", "tokenizer.", "split.", "quantize.")


def check_metadata(values: GgufValues) -> list[str]:
    """Notes about metadata that nothing read; CheckpointError names one that changes the results, or is of
    another type than it should be."""
    unknown, prefix = [], values.architecture + "."
    for key, value in values.metadata.items():
        if key.startswith(_DESCRIPTIVE):
            _check_type(values.file, key, value)
            continue
        if not key.startswith(prefix):
            unknown.append(key)
            continue
        name = key.removeprefix(prefix)
        allowed = _NEUTRAL.get(name, ())
        if name in values.read or name in _HARMLESS or _is_off(value, allowed):
            continue
        if name == "attention.scale" and _is_usual_scale(value, values.head_dim):
            continue
        if not any((type(value) is type(v) and value == v) or _number(value) == v for v in allowed):
            expected = f"expected {' or '.join(map(str, allowed))}" if allowed else "expected no such key"
            raise CheckpointError(
                f"{values.file} has {key}: {str(value)[:60]}, which may change the results and is not "
                f"supported; {expected}"
            )
    if unknown:
        shown = ", ".join(sorted(key[:40] for key in unknown)[:8])
        more = f" and {len(unknown) - 8} more" if len(unknown) > 8 else ""
        return [f"{values.file} has metadata that are not known and not used: {shown}{more}."]
    return []


def _check_type(file: str, key: str, value: object) -> None:
    for form, kind, expected in _TYPES:
        if re.fullmatch(form, key) and type(value) is not kind:
            raise CheckpointError(
                f"{file} has {key[:60]}: {value!r:.60}, expected {expected}; convert the model to GGUF again"
            )


def _is_off(value: object, allowed: tuple[object, ...]) -> bool:
    if isinstance(value, list):
        return all(_is_off(v, allowed) for v in value)
    if value is False:
        return not any(v is True for v in allowed)
    return value == "" or _number(value) == 0


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _is_usual_scale(value: object, head_dim: int) -> bool:
    """Whether `value` is 1 / sqrt(head_dim), which attention uses anyway."""
    number = _number(value)
    return number is not None and abs(number * head_dim**0.5 - 1) < 1e-5

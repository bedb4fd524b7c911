"""Numbers of the configuration that are not the reference's: a wrong RoPE base, another epsilon, a window."""

import math
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from rockledge.doctor.case import Case
from rockledge.doctor.finding import Finding, NewSettings

# What other checks compare, or what changes no result.
_ELSEWHERE = ("bos", "eos", "family")
_HARMLESS = ("context",)
_WORDS = {
    "rope_theta": "the RoPE base",
    "rope_divisors": "what RoPE's frequencies are divided by",
    "rope_factor": "the factor of RoPE's cosines and sines",
    "window_rope_theta": "the RoPE base of layers with a window",
    "rotary_channels": "how many channels of a head are turned",
    "unturned": "the layers without rotary turns",
    "windows": "the windows of attention",
    "norm_eps": "the epsilon of norms",
    "attention_scale": "the scale of attention's scores",
    "embedding_scale": "the factor of embeddings",
    "logit_scale": "the factor of logits",
    "bos": "the token that texts begin with",
}


def check_settings(case: Case) -> Iterator[Finding]:
    """Every field in which the artifact's configuration differs."""
    if case.reference is None:
        return
    ours, theirs = case.artifact.config, case.reference.config
    for name in (field.name for field in fields(ours)):
        found, wanted = getattr(ours, name), getattr(theirs, name)
        if (name in _ELSEWHERE and name != "bos") or _same(found, wanted):
            continue
        words = _WORDS.get(name, f"the setting {name}")
        yield Finding(
            check="settings",
            place=f"config.json: {name}",
            severity="remark" if name in _HARMLESS else "alarm",
            cause=f"{words} is {_shown(found)}, the reference has {_shown(wanted)}",
            mend=f"set {name} to {_shown(wanted)}",
            change=NewSettings({name: wanted}),
            details={"found": found, "expected": wanted},
        )


def _same(found: Any, wanted: Any) -> bool:
    """Equal, but for the last digits of floats."""
    if isinstance(found, tuple) and isinstance(wanted, tuple):
        return len(found) == len(wanted) and all(map(_same, found, wanted))
    if isinstance(found, float) and isinstance(wanted, float):
        return math.isclose(found, wanted, rel_tol=1e-5, abs_tol=1e-12)
    return bool(found == wanted)


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        shown = ", ".join(map(_shown, value[:4]))
        return f"({shown}{', ...' if len(value) > 4 else ''})"
    return f"{value:g}" if isinstance(value, float) else str(value)

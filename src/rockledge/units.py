"""Sizes, durations and large counts as people read and write them: 98.4 MB, 8 h 20 min, 1h30m, 3.5b."""

import math
import re

_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PIECE = r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)"
_MOST_CHARACTERS = 64

_COUNTS = {"k": 1e3, "m": 1e6, "b": 1e9}
_SIZES = (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


def show_size(size: float, *, enough: bool = False) -> str:
    """Bytes for people, in powers of ten; with `enough` rounded up, for one who is to give so many."""
    for unit, scale in _SIZES:
        if size >= scale:
            digits = 2 if scale >= 1e9 else 1
            shown = math.ceil(size / scale * 10**digits) / 10**digits if enough else size / scale
            return f"{shown:.{digits}f} {unit}"
    return f"{size:.0f} B"


def show_count(count: int) -> str:
    """A number of parameters for people, as models are named: 3.5b, 134.5m."""
    for unit, scale in reversed(_COUNTS.items()):
        if count >= scale:
            return f"{count / scale:.{2 if scale >= 1e9 else 1}f}{unit}"
    return str(count)


def read_count(text: str) -> int | None:
    """A number of parameters such as 3.5b, 135M or 82000000; None for anything else, and for 0."""
    text = text.strip()[: _MOST_CHARACTERS + 1].lower()
    found = re.fullmatch(r"(\d{1,18}(?:\.\d{1,18})?)([kmb]?)", text, re.ASCII)
    count = round(float(found[1]) * _COUNTS.get(found[2], 1.0)) if found else 0
    return count or None


def show_duration(seconds: float) -> str:
    """Seconds for people, in no more than two units: 24 s, 14 min, 8 h 20 min."""
    if seconds < 90:
        return f"{max(seconds, 0):.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest} min" if rest else f"{hours} h"


def read_duration(text: str) -> float | None:
    """Seconds of a number, or of a duration as Go writes it (https://pkg.go.dev/time#ParseDuration): 300,
    1h30m, -1s. None for anything else."""
    found = re.fullmatch(r"([+-]?)(.+)", text.strip()[: _MOST_CHARACTERS + 1], re.ASCII)
    if found is None or len(found[0]) > _MOST_CHARACTERS:
        return None
    if re.fullmatch(r"\d+(\.\d+)?", found[2], re.ASCII):
        seconds = float(found[2])
    elif re.fullmatch(f"({_PIECE})+", found[2], re.ASCII):
        pieces = re.findall(_PIECE, found[2], re.ASCII)
        seconds = math.fsum(float(number) * _SECONDS[unit] for number, unit in pieces)
    else:
        return None
    return -seconds if found[1] == "-" else seconds

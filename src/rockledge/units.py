"""Sizes and durations as people read them: 98.4 MB, 8 h 20 min."""

import math

_SIZES = (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


def show_size(size: float, *, enough: bool = False) -> str:
    """Bytes for people, in powers of ten; with `enough` rounded up, for one who is to give so many."""
    for unit, scale in _SIZES:
        if size >= scale:
            digits = 2 if scale >= 1e9 else 1
            shown = math.ceil(size / scale * 10**digits) / 10**digits if enough else size / scale
            return f"{shown:.{digits}f} {unit}"
    return f"{size:.0f} B"


def show_duration(seconds: float) -> str:
    """Seconds for people, in no more than two units: 24 s, 14 min, 8 h 20 min."""
    if seconds < 90:
        return f"{max(seconds, 0):.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest} min" if rest else f"{hours} h"

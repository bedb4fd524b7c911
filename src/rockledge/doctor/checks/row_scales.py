"""Row scales that are not those of the weights: in a head, in some rows, or in a whole matrix."""

import math
from collections.abc import Iterator

import torch

from rockledge.doctor.finding import Finding, Requantised
from rockledge.doctor.stored_linear import StoredLinear

_ALIKE = 0.75  # least correlation at which a factor between two rows means anything
_HEAD_OFF = 1.25  # a head's rows are shorter by less even at two bits
_ROW_OFF = 1.7


def check_row_scales(linear: StoredLinear) -> Iterator[Finding]:
    """Compares the length of stored rows with that of the original's along the same direction."""
    found = linear.likeness
    alike = found.correlation.abs() > _ALIKE
    if linear.head:
        gains = found.gain.view(-1, linear.head)
        usable = alike.view(-1, linear.head).float().mean(dim=1) > 0.5
        heads = gains.median(dim=1).values
        wrong = _off(heads, _HEAD_OFF) & usable
        if bool(wrong.any()):
            yield _finding(linear, "head", wrong, float(heads[wrong].median()))
            return
    rows = _off(found.gain, _ROW_OFF) & alike
    if bool(rows.any()):
        yield _finding(linear, "row", rows, float(found.gain[rows].median()))


def _off(gains: torch.Tensor, factor: float) -> torch.Tensor:
    return (gains.abs().clamp_min(1e-30).log().abs() > math.log(factor)) | (gains < 0)


def _finding(linear: StoredLinear, unit: str, wrong: torch.Tensor, gain: float) -> Finding:
    numbers = torch.nonzero(wrong).flatten().tolist()
    which = f"{_listed(unit, numbers)} of {len(wrong)}" if len(numbers) < len(wrong) else f"every {unit}"
    return Finding(
        check="row_scales",
        place=linear.name,
        severity="alarm",
        cause=f"the row scales of {which} are {gain:.3g} times what the weights need: a wrong scale",
        mend=f"quantise {linear.name} again from the reference",
        change=Requantised((linear.name,)),
        details={f"{unit}s": numbers[:64], "factor": gain},
    )


def _listed(unit: str, numbers: list[int]) -> str:
    if len(numbers) == 1:
        return f"{unit} {numbers[0]}"
    shown = ", ".join(map(str, numbers[:5]))
    return f"{unit}s {shown}" + (f" and {len(numbers) - 5} more" if len(numbers) > 5 else "")

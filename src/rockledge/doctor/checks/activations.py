"""Outlier channels, range and the first token: what the float model's activations are like."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from rockledge.doctor.case import Case
from rockledge.doctor.finding import Finding

_EXTREMES: Mapping[str, tuple[float, str]] = MappingProxyType(
    {
        "outlier_ratio": (
            30.0,
            "channel {0.outlier_channel} is {0.outlier_ratio:.0f} times as loud as the median",
        ),
        "headroom_bits": (
            5.0,
            "a token's largest value takes {0.headroom_bits:.1f} of seven bits from the others",
        ),
        "first_token": (8.0, "the first token is {0.first_token:.0f} times as loud as the others"),
        "sink": (0.5, "{0.sink:.0%} of attention goes to the first token, which must be that of training"),
    }
)
"""From where a field of a reading is worth a remark, and what is said then."""


def check_activations(case: Case) -> Iterator[Finding]:
    """Remarks about the most extreme operation of each kind."""
    for name, (least, said) in _EXTREMES.items():
        found = _extreme(case, name, least, said)
        if found is not None:
            yield found


def _extreme(case: Case, name: str, least: float, said: str) -> Finding | None:
    readings = [one for one in case.readings if (getattr(one, name) or 0.0) >= least]
    if not readings:
        return None
    worst = max(readings, key=lambda one: getattr(one, name))
    return Finding(
        check="activations",
        place=worst.operation.name,
        severity="remark",
        cause=said.format(worst),
        mend="nothing to mend unless it explains much of the divergence",
        details={name: getattr(worst, name), "operations": len(readings)},
    )

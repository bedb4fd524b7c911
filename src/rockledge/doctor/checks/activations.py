"""Outlier channels, range and the first token: what the float model's activations are like."""

from collections.abc import Callable, Iterator

from rockledge.doctor.case import Case
from rockledge.doctor.finding import Finding
from rockledge.doctor.reading import Reading

_LOUD = 30.0  # times the median channel
_FIRST = 8.0  # times the other tokens
_SINK = 0.5  # share of attention
_HEADROOM = 5.0  # bits of the seven


def check_activations(case: Case) -> Iterator[Finding]:
    """Remarks about the most extreme operation of each kind."""
    for found in (
        _extreme(case, "outlier_ratio", _LOUD, lambda r: f"channel {r.outlier_channel} is {r.outlier_ratio:.0f} "
                 "times as loud as the median channel"),
        _extreme(case, "headroom_bits", _HEADROOM, lambda r: f"the largest value of a token takes "
                 f"{r.headroom_bits:.1f} of seven bits from the others"),
        _extreme(case, "first_token", _FIRST, lambda r: f"the first token is {r.first_token:.0f} times as loud "
                 "as the others"),
        _extreme(case, "sink", _SINK, lambda r: f"{r.sink:.0%} of attention goes to the first token, which "
                 "must be the one that the model was trained with"),
    ):  # fmt: skip
        if found is not None:
            yield found


def _extreme(case: Case, name: str, least: float, said: Callable[[Reading], str]) -> Finding | None:
    readings = [one for one in case.readings if (getattr(one, name) or 0.0) >= least]
    if not readings:
        return None
    worst = max(readings, key=lambda one: getattr(one, name))
    return Finding(
        check="activations",
        place=worst.operation.name,
        severity="remark",
        cause=said(worst),
        mend="nothing to mend unless it explains much of the divergence",
        details={name: getattr(worst, name), "operations": len(readings)},
    )

"""The runtime on the CPU beside the specification: where they part, hypotheses are tried until one fits.

Float sums in another order tip roundings over, and in trained models each of those is passed on. How far that
goes by itself is measured: the specification is compared with itself from an embedding that is a millionth
otherwise.
"""

from collections.abc import Iterator

import torch

from rockledge.doctor.case import Case
from rockledge.doctor.divergence import divergences
from rockledge.doctor.finding import Finding
from rockledge.doctor.hypotheses import HYPOTHESES
from rockledge.doctor.put_back import part_of, share

SUSPECT = 5e-6
"""Nats a token from which on the difference is looked into."""
APART = 1e-4
"""Nats a token that are an alarm although no hypothesis explains them."""
_ORDINARY = 2.0  # times what a change of a millionth does
_TRIED_TOKENS = 192  # of the text, for that and for hypotheses
_FITS = 0.25  # share of the disagreement that the right hypothesis leaves at most


def check_runtime(case: Case) -> Iterator[Finding]:
    """One finding where the runtime does not compute the specification."""
    apart = float(divergences(case.runs.specification, case.runs.cpu).mean())
    if apart <= SUSPECT or not torch.isfinite(case.runs.specification).all():
        return
    part, rows = part_of(case.text, _TRIED_TOKENS)
    here = float(divergences(case.runs.specification[rows], case.runs.cpu[rows]).mean())
    moved = case.spec.run(part, shaken=True)
    ordinary = _ORDINARY * float(divergences(case.runs.specification[rows], moved).mean())
    if here <= ordinary:
        return
    found = _fitting(case, max(_FITS * here, ordinary))
    if found is None and apart <= APART:
        return
    known = HYPOTHESES[found].cause if found else "none of the known faults explains it"
    explained = None
    if case.runs.reference is not None:
        cost, left = (
            float(divergences(case.runs.reference, one).mean())
            for one in (case.runs.cpu, case.runs.specification)
        )
        explained = share(cost, left)
    yield Finding(
        check="runtime",
        place="CPU",
        severity="alarm",
        cause=f"the CPU does not compute what the specification says ({apart:.3g} nats a token): {known}",
        mend="build the native core again and run its tests; try --kernel portable",
        explained=explained,
        details={"kl_mean_nats": apart, "hypothesis": found},
    )


def _fitting(case: Case, most: float) -> str | None:
    """The hypothesis that leaves least of the disagreement, if that is at most so many nats a token."""
    part, rows = part_of(case.text, _TRIED_TOKENS)
    cpu = case.runs.cpu[rows]
    left: dict[str, float] = {}
    for name, hypothesis in HYPOTHESES.items():
        wrong = hypothesis.wrong(case.spec)
        if wrong is not None:
            left[name] = float(divergences(wrong.run(part), cpu).mean())
    best = min(left, key=lambda name: left[name] if left[name] == left[name] else float("inf"))
    return best if left[best] <= most else None

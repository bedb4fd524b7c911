"""A matrix that is not the reference's at all, after nothing else has explained why."""

from collections.abc import Iterator

from rockledge.doctor.basis import ALIKE
from rockledge.doctor.finding import Finding, Requantised
from rockledge.doctor.stored_linear import StoredLinear


def check_unlike(linear: StoredLinear) -> Iterator[Finding]:
    """One finding where less than half of a typical row is the original's."""
    if linear.likeness.typical > ALIKE:
        return
    yield Finding(
        check="unlike",
        place=linear.name,
        severity="alarm",
        cause="it is not like the reference's matrix in any basis: other weights, or damaged ones",
        mend=f"quantise {linear.name} again from the reference",
        change=Requantised((linear.name,)),
        details={"correlation": linear.likeness.typical},
    )

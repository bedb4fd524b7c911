"""A missing rotation in the description: the weights need another one than the runtime is told of."""

from collections.abc import Iterator

import numpy as np

from rockledge.doctor.case import Case
from rockledge.doctor.finding import Finding, NewTurns
from rockledge.formats.hadamard import Rotation


def check_described_turns(case: Case) -> Iterator[Finding]:
    """Compares what the weights were found to need with what the artifact says."""
    if case.basis is None:
        return
    wanted, online = case.basis.model.rotation, dict(case.basis.online)
    said = []
    if not _same(case.artifact.rotation, wanted):
        if wanted is None:
            said.append("the description has a rotation of the residual stream, the weights have none")
        elif case.artifact.rotation is None:
            said.append("a missing rotation: the weights are rotated, the description says that nothing is")
        else:
            said.append("a wrong rotation: the weights are turned by another one than the description has")
    for place in sorted({*online, *case.artifact.online}):
        found, needed = case.artifact.online.get(place, 0), online.get(place, 0)
        if found != needed:
            said.append(
                f"a missing rotation: the weights need a Hadamard of {needed} before {place}, the runtime "
                f"applies {f'one of {found}' if found else 'none'}"
                if needed
                else f"a Hadamard of {found} before {place} that the weights do not need"
            )
    if said:
        yield Finding(
            check="described_turns",
            place="rotation",
            severity="alarm",
            cause="; ".join(said),
            mend="describe the turns that the weights were stored for",
            change=NewTurns(wanted, online),
        )


def _same(found: Rotation | None, wanted: Rotation | None) -> bool:
    if found is None or wanted is None:
        return found is wanted
    return (
        (found.block, found.odd) == (wanted.block, wanted.odd)
        and np.array_equal(found.signs, wanted.signs)
        and np.allclose(found.mix, wanted.mix, atol=1e-5)
    )

"""Numbers that are not numbers, in scales, biases, gains and logits."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from rockledge.doctor.case import Case
from rockledge.doctor.finding import Finding, Requantised

_LARGEST = 1e6  # no scale, bias or gain of a sound model comes near


def check_finite(case: Case) -> Iterator[Finding]:
    """Of everything that is stored as a float, and of what the runtime answered."""
    artifact, mended = case.artifact, case.reference is not None
    stored: dict[str, list[npt.NDArray[np.float32]]] = {
        name: [artifact.array(name)] for name in artifact.arrays
    }
    for name in artifact.linears:
        packed = artifact.linear(name)
        stored[name] = [packed.scale, *([] if packed.bias is None else [packed.bias])]
    for name, arrays in stored.items():
        wrong = sum(int((~(np.abs(values) < _LARGEST)).sum()) for values in arrays)
        if wrong:
            yield Finding(
                check="finite",
                place=name,
                severity="alarm",
                cause=f"{wrong} of its scales, biases or gains are not finite, or beyond {_LARGEST:.0e}",
                mend=f"quantise {name} again from the reference" if mended else "make the artifact again",
                change=Requantised((name,)) if mended else None,
            )
    for said, logits in (("the specification", case.runs.specification), ("the runtime", case.runs.cpu)):
        bad = int((~torch.isfinite(logits).all(-1)).sum())
        if bad:
            yield Finding(
                check="finite",
                place="logits",
                severity="alarm",
                cause=f"{said} gives logits that are not finite after {bad} of {len(logits)} tokens",
                mend="mend what is found beside this; make the artifact again if nothing is",
            )

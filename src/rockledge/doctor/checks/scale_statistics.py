"""Row scales that stand out: what can be said of weights without their originals."""

from collections.abc import Iterator

import numpy as np

from rockledge.doctor.case import Case
from rockledge.doctor.finding import Finding
from rockledge.formats.packing import unpack
from rockledge.model.block import layer_name

_ALONE = 8.0  # a head this much louder or quieter than the linear's median head, in every layer but a few


def check_scale_statistics(case: Case) -> Iterator[Finding]:
    """Compares heads of one linear, where no reference says what is right."""
    if case.reference is not None:
        return
    tree = case.spec.tree
    for number, layer in enumerate(tree.layers):
        for linear in layer.linears:
            if linear.banding != "head":
                continue
            name = layer_name(number, linear.role)
            packed = case.artifact.linear(name)
            rows = np.sqrt(np.square(unpack(packed).astype(np.float32)).mean(axis=1)) * packed.scale
            heads = np.sqrt(
                np.square(rows.astype(np.float64)).reshape(-1, layer.attends.head_dim).mean(axis=1)
            )
            middle = np.median(heads)
            with np.errstate(divide="ignore", invalid="ignore"):
                ratio = heads / middle
            odd = np.flatnonzero((ratio > _ALONE) | (ratio < 1 / _ALONE))
            if len(heads) > 2 and odd.size:
                yield Finding(
                    check="scale_statistics",
                    place=name,
                    severity="remark",
                    cause=f"head {odd[0]} is {ratio[odd[0]]:.3g} times as loud as the median head",
                    mend="compare it with the checkpoint: give --reference",
                    details={"heads": odd.tolist()},
                )

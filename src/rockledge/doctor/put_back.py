"""How much of the divergence each operation explains: it alone is put back to float, the others stay.

All changed models go through the layers side by side, each from the layer in which it changes on. Errors are
nearly independent, so the shares of a healthy artifact are small and come to about one together; a share is
negative where an error happened to cancel others.
"""

import math
from collections.abc import Callable, Collection, Mapping
from itertools import islice

import torch
from torch import Tensor

from rockledge.doctor.basis import Basis
from rockledge.doctor.divergence import divergences_from, log_probabilities
from rockledge.doctor.operation import Operation
from rockledge.doctor.specification import Specification
from rockledge.doctor.text import Text

_TOGETHER = 8  # models whose activations pass a layer at a time

Key = Operation | None
"""None is the artifact as it is."""


def part_of(text: Text, most: int) -> tuple[Text, slice]:
    """The first sequences of a text, at least one, that come to at most `most` padded tokens; and their place
    among all tokens."""
    count = max(1, min(len(text.sequences), most // text.length))
    part = Text(text.sequences[:count], text.prompts[:count], text.least)
    return part, slice(0, sum(map(len, part.sequences)))


def share(before: float, after: float) -> float:
    """Of a divergence that is gone; all of it where it was not a number and is one now."""
    if not math.isfinite(before):
        return 1.0 if math.isfinite(after) else 0.0
    return 0.0 if before <= 0 or not math.isfinite(after) else 1 - after / before


@torch.no_grad()
def explained(
    spec: Specification,
    basis: Basis,
    text: Text,
    expected: Tensor,
    operations: Collection[Operation],
    progress: Callable[[str, int, int], None],
) -> dict[Operation, float]:
    """The share of KL(expected || spec) that is gone once an operation is put back to float, for each."""
    tree = spec.tree
    table = spec.matrix(tree.embed.role)
    states: dict[Key, Tensor] = {None: spec.embedded(table, text)}
    embed = Operation("weights", None, tree.embed.role)
    if embed in operations:
        states[embed] = spec.embedded(basis.embedding(), text)
    for number in range(len(tree.layers)):
        here = [one for one in operations if one.layer == number]
        states = _advanced(spec, basis, number, here, states)
        progress("operations put back to float", number + 1, len(tree.layers))
    for one in operations:
        if one.layer is None and one not in states:
            states[one] = states[None]
    head = table if tree.tied else spec.matrix(tree.head.role)
    log_p = log_probabilities(expected)
    found = {key: _divergence(spec, basis, key, x, head, text, log_p) for key, x in states.items()}
    return {key: share(found[None], kl) for key, kl in found.items() if key is not None}


def _advanced(
    spec: Specification, basis: Basis, number: int, here: Collection[Operation], states: Mapping[Key, Tensor]
) -> dict[Key, Tensor]:
    stored = spec.layer_weights(number)
    passed: dict[Key, Tensor] = {}
    waiting = iter(states.items())
    while some := dict(islice(waiting, _TOGETHER)):
        out = spec.layer(number, stored, torch.cat(list(some.values())))
        passed.update(zip(some, out.chunk(len(some)), strict=True))
    wanted = basis.layer(number, stored) if any(one.kind == "weights" for one in here) else {}
    for one in here:
        if one.kind == "weights":
            own = {role: wanted[role] for role in (one.role, one.role + ".bias") if role in wanted}
            passed[one] = spec.layer(number, {**stored, **own}, states[None])
        else:
            plain = frozenset(["cache" if one.kind == "cache" else one.role])
            passed[one] = spec.layer(number, stored, states[None], plain=plain)
    return passed


def _divergence(
    spec: Specification, basis: Basis, key: Key, x: Tensor, head: Tensor, text: Text, log_p: Tensor
) -> float:
    tree = spec.tree
    ends = key is not None and key.layer is None
    plain = ends and key is not None and key.kind == "inputs"
    if ends and key is not None and key.kind == "weights" and key.role == tree.head.role:
        head = basis.head()
    return float(divergences_from(log_p, spec.logits(text.rows(x), head, plain=plain)).mean())

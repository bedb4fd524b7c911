"""Which layers a model does without: what it costs to leave them out, alone and together.

The cost is the divergence from the whole model, which is the loss that a student is distilled by, and on few
tokens a better witness than that of the text. All models that leave something out go through the layers side
by side, so that every layer is read once; each of them begins where its first missing layer is.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rockledge.model.block import decoder
from rockledge.model.checkpoint import Checkpoint
from rockledge.pruning.importance import Progress
from rockledge.pruning.walk import divergence, through
from rockledge.quantization.float_model.forward import block_weights, embed_tokens, head_weights

LAYERS, AGAIN, TOGETHER = "layers", "layers again", "layers together"
"""Stages: each left out alone, alone beside half of those that go, and those that go at once."""

Dropped = frozenset[int]
Costs = Callable[[Iterable[Dropped], str], dict[Dropped, float]]
"""`costs_without` some sets of layers in one of the stages."""


@dataclass(frozen=True)
class Depth:
    """`alone` by layer, the cost of leaving it out alone, nats a token; `kept` by number of layers, which
    stay; `costs` by number, of these."""

    alone: tuple[float, ...]
    kept: dict[int, tuple[int, ...]]
    costs: dict[int, float]


@torch.no_grad()
def costs_without(
    checkpoint: Checkpoint,
    tokens: Tensor,
    sets: Iterable[Dropped],
    device: torch.device | str,
    progress: Progress,
    stage: str,
) -> dict[Dropped, float]:
    """What it costs on `tokens` int64 [S, T] to leave out each set of layers, none of them empty: KL from
    the whole model, nats a token."""
    tree = decoder(checkpoint.config)
    whole = embed_tokens(checkpoint, tokens)
    wanted = set(sets)
    running: dict[Dropped, Tensor] = {}
    for number, layer in enumerate(tree.layers):
        running |= {one: whole for one in wanted if min(one) == number}
        weights = block_weights(checkpoint, number, device)
        goes_on = {one: states for one, states in running.items() if number not in one}
        for branch in layer.branches:
            whole = through(weights, whole, tree, branch, device)
            for one, states in goes_on.items():
                goes_on[one] = through(weights, states, tree, branch, device)
        running |= goes_on
        progress(stage, number + 1, len(tree.layers))
    head = head_weights(checkpoint, device)
    return {one: divergence(head, states, whole, tree) for one, states in running.items()}


def choose_layers(influences: Sequence[float], counts: Iterable[int], costs: Costs) -> Depth:
    """For each of `counts`, the layers of which so many stay; `costs` says what it costs to leave some out.

    Of four choices the one that costs least: those that cost least alone; half of them so, and the rest by
    what they cost when that half is gone; those with the least influence; and neighbours that have the least
    influence together.
    """
    layers = len(influences)
    found = costs((frozenset([i]) for i in range(layers)), LAYERS)
    alone = tuple(found[frozenset([i])] for i in range(layers))
    wanted = sorted({count for count in counts if count < layers})
    kept, price = {layers: tuple(range(layers))}, {layers: 0.0}
    if wanted:
        by_cost = sorted(range(layers), key=lambda i: alone[i])
        by_influence = sorted(range(layers), key=lambda i: influences[i])
        half = frozenset(by_cost[: (layers - wanted[0] + 1) // 2])
        rest = {half | {i}: i for i in range(layers) if i not in half}
        again = costs(rest, AGAIN)
        in_rounds = [*by_cost[: len(half)], *sorted(rest.values(), key=lambda i: again[half | {i}])]
        orders = (by_cost, in_rounds, by_influence)
        choices = {
            count: {frozenset(order[: layers - count]) for order in orders}
            | {_neighbours(influences, layers - count)}
            for count in wanted
        }
        together = costs(set().union(*choices.values()), TOGETHER)
        for count, sets in choices.items():
            best = min(sets, key=lambda one: (together[one], sorted(one)))
            kept[count] = tuple(i for i in range(layers) if i not in best)
            price[count] = together[best]
    return Depth(alone, kept, price)


def _neighbours(influences: Sequence[float], count: int) -> Dropped:
    first = min(range(len(influences) - count + 1), key=lambda i: sum(influences[i : i + count]))
    return frozenset(range(first, first + count))

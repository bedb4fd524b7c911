"""Widths by a fixed rule: what matters most in every model is widened first, as far as the budget reaches.

`SENSITIVITY` is what `quantize` measured in SmolLM2-135M (off the grid, 2026-11-30): the price in nats a
token of four bits by role, for as many weights, relative to Q's. Wherever a band is widened, its error
shrinks by what the tables of normal weights lose, so the gain of a byte is known in advance.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from rockledge.errors import BudgetError
from rockledge.formats.bands import Band, stream_bytes
from rockledge.model.block import Decoder, Linear
from rockledge.units import show_size

Widths = dict[str, tuple[Band, ...]]

SENSITIVITY = {
    "attn.q": 1.0,
    "attn.k": 6.0,
    "attn.v": 23.0,
    "attn.o": 1.0,
    "ffn.gate": 1.3,
    "ffn.up": 2.1,
    "ffn.down": 3.1,
}
# Of the sixteenths of an embedding or a head: tokens of low number are frequent.
_VOCABULARY = (26.0, 3.2, 1.9, 1.2, 1.0, 0.9, 0.65, 0.6, 0.5, 0.4, 0.35, 0.3, 0.3, 0.3, 0.3, 0.3)
# What rounding loses of a normal row's energy.
_LOSS = {2: 0.073, 3: 0.0177, 4: 0.00445, 8: 0.00002}
_STEP = 8  # rows of a strip, where a vocabulary is cut


@dataclass(frozen=True)
class _Run:
    """Rows of a linear that have one width."""

    linear: str
    start: int
    rows: int
    cols: int
    sensitivity: float

    def bytes(self, bits: int) -> int:
        return sum(stream_bytes((Band(0, self.rows, bits),), self.cols))

    def gain(self, low: int, high: int) -> float:
        """How much less is lost for each byte from one width to the next."""
        less = self.sensitivity * self.rows * self.cols * (_LOSS[low] - _LOSS[high])
        return less / (self.bytes(high) - self.bytes(low))


def fixed_widths(tree: Decoder, room: int) -> Widths:
    """The bands of every linear whose codes and indices take at most `room` bytes. BudgetError where two bits
    everywhere take more."""
    runs = list(_runs(tree))
    width = dict.fromkeys(runs, min(_LOSS))
    left = room - sum(run.bytes(bits) for run, bits in width.items())
    if left < 0:
        raise BudgetError(
            f"the budget leaves {show_size(max(room, 0))} for the codes of the weights, expected at least "
            f"{show_size(room - left, enough=True)}; give more bits"
        )
    ladder = sorted(_LOSS)
    steps = [(run, low, high) for run in runs for low, high in pairwise(ladder)]
    # Sorting is stable, and a run's own steps gain less and less: no step comes before the one it stands on.
    for run, low, high in sorted(steps, key=lambda step: -step[0].gain(*step[1:])):
        cost = run.bytes(high) - run.bytes(low)
        if width[run] == low and cost <= left:
            width[run], left = high, left - cost
    found: dict[str, list[Band]] = {}
    for run, bits in width.items():
        bands = found.setdefault(run.linear, [])
        if bands and bands[-1].bits == bits:
            bands[-1] = Band(bands[-1].start, bands[-1].rows + run.rows, bits)
        else:
            bands.append(Band(run.start, run.rows, bits))
    return {name: tuple(bands) for name, bands in found.items()}


def stream_room(tree: Decoder, bits: int) -> int:
    """Bytes of codes and indices with one width everywhere, cut as `fixed_widths` cuts."""
    return sum(run.bytes(bits) for run in _runs(tree))


def _runs(tree: Decoder) -> Iterator[_Run]:
    for name, linear in tree.linears():
        if linear in (tree.embed, tree.head):
            yield from _vocabulary(name, linear)
        else:
            yield _Run(name, 0, linear.rows, linear.cols, SENSITIVITY[linear.role])


def _vocabulary(name: str, linear: Linear) -> Iterator[_Run]:
    step = max(_STEP, -(-linear.rows // (len(_VOCABULARY) * _STEP)) * _STEP)
    for number, start in enumerate(range(0, linear.rows, step)):
        yield _Run(name, start, min(step, linear.rows - start), linear.cols, _VOCABULARY[number])

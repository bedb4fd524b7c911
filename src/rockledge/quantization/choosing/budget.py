"""From "4.25 bits" or "it must fit this board" to an allocation: what each band's widths cost in bytes and
milliseconds.

`bits_per_weight` is 8 x all tensor bytes / parameters, so what is not a band (norm gains, rotation, biases,
padding) is taken off the budget first.
"""

from collections.abc import Collection
from dataclasses import dataclass
from itertools import groupby
from math import ceil, floor, log10, nan

from rockledge.artifact import ArtifactPlan, LinearSpec, packed_size
from rockledge.board.boards import Board
from rockledge.board.time import band_ms
from rockledge.errors import BudgetError
from rockledge.formats.bands import TABLES, aligned, stream_bytes
from rockledge.formats.bands import Band as StoredBand
from rockledge.model.block import decoder, layer_name
from rockledge.model.config import ModelConfig
from rockledge.quantization.choosing.allocate import Allocation, Band, Budget, Option, allocate
from rockledge.quantization.rounding.candidates import NARROW_WIDTHS, WIDTHS
from rockledge.quantization.transforming.rotate import RotatedModel
from rockledge.quantization.work.store import Prices
from rockledge.units import show_size

Widths = dict[str, tuple[StoredBand, ...]]
"""The bands of every linear, as they are stored."""

# Share of an artifact's predicted divergence that rounding one input to int8 may cause before it gets
# sixteen bits. They take no bytes and hardly any time in decode, where memory binds; in prefill they take
# the linear's time twice.
_PLANE_SHARE = 0.05


@dataclass(frozen=True)
class Limits:
    """What the artifact may cost: bytes of all its tensors, and milliseconds a decoded token on `board`."""

    board: Board
    bytes: int | None = None
    milliseconds: float | None = None


def menu(model: RotatedModel, limits: Limits, used: Collection[int] = ()) -> tuple[int, ...]:
    """The widths to round every linear at, for a budget or for the widths `used` by a recipe.

    Two bits come only where three everywhere would be too many. A width costs its rounding in every linear,
    and errors as large as those of two bits cost more than second-order prices say: SmolLM2 at 3.5 bits is
    worse with two bits on the menu than without.

    BudgetError when even the narrowest widths cannot meet the budget: hours before prices would show it.
    """
    if used:
        return NARROW_WIDTHS if min(used) < min(WIDTHS) else WIDTHS
    three, two = (uniform(model, limits.board, min(widths)) for widths in (WIDTHS, NARROW_WIDTHS))
    most, longest = limits.bytes, limits.milliseconds
    if most is not None and two.bytes > most:
        raise _too_small(model, most, two.bytes)
    if longest is not None and two.milliseconds > longest:
        raise BudgetError(
            f"{longest:g} ms a token is too short for this model on {limits.board.name}; the "
            f"nearest possible is {_rounded_up(two.milliseconds):g} ms"
        )
    tight = (most is not None and three.bytes > most) or (
        longest is not None and three.milliseconds > longest
    )
    return NARROW_WIDTHS if tight else WIDTHS


def _rounded_up(value: float) -> float:
    """Rounded up to three significant digits."""
    unit = 10.0 ** (floor(log10(value)) - 2)
    return ceil(value / unit) * unit


def uniform(model: RotatedModel, board: Board, bits: int) -> Option:
    """The whole model at one width: its bytes, the milliseconds of a token; the price is unknown."""
    linears = dict(decoder(model.config).linears())
    size = _size(model, {name: (StoredBand(0, one.rows, bits),) for name, one in linears.items()})
    time = sum(
        band_ms(bits, one.rows, one.cols, board=board)
        for name, one in linears.items()
        if not _gathered(name, model.config)
    )
    return Option(bits, nan, size, time)


def _gathered(linear: str, config: ModelConfig) -> bool:
    """Whether no token is multiplied with it: an embedding that is no head too, which takes no time."""
    tree = decoder(config)
    return linear == tree.embed.role and tree.gathered


def _too_small(model: RotatedModel, wanted: int, least: int) -> BudgetError:
    count = decoder(model.config).parameters
    return BudgetError(
        f"a budget of {show_size(wanted)} ({8 * wanted / count:.3f} bits a weight) is too small for this "
        f"model; the nearest possible is {show_size(least)} ({8 * least / count:.3f} bits a weight)"
    )


def bands_of(prices: Prices, board: Board, config: ModelConfig) -> list[Band]:
    """The measured bands as the allocator wants them."""
    bands = []
    for measured in prices.bands:
        gathered = _gathered(measured.linear, config)
        options = []
        for bits, price in sorted(measured.prices.items()):
            codes, index = stream_bytes((StoredBand(0, measured.rows, bits),), measured.cols)
            ms = 0.0 if gathered else band_ms(bits, measured.rows, measured.cols, board=board)
            options.append(Option(bits, price, codes + index, ms))
        bands.append(Band(measured.linear, measured.start, measured.rows, tuple(options)))
    return bands


def fit_widths(prices: Prices, model: RotatedModel, limits: Limits) -> Widths:
    """The bands of least predicted divergence within `limits`.

    BudgetError names the nearest possible budget, in bits a weight where bytes are the limit.
    """
    bands = bands_of(prices, limits.board, model.config)
    if limits.bytes is None:
        return _merged(bands, allocate(bands, Budget(None, limits.milliseconds)))
    narrowest = _narrowest(bands)
    widths = _merged(bands, narrowest)
    least = _size(model, widths)
    if least > limits.bytes:
        raise _too_small(model, limits.bytes, least)
    # Every linear is first charged for the tables of all widths; what its choice does not need is then given
    # back, once.
    small = {bits for band in prices.bands for bits in band.prices if bits < 8}
    room = limits.bytes - _fixed_bytes(model, len(small))
    for _ in range(2):
        budget = Budget(max(room, narrowest.bytes), limits.milliseconds)
        found = _merged(bands, allocate(bands, budget))
        spare = limits.bytes - _size(model, found)
        if spare < 0:
            break
        widths, room = found, room + spare
    return widths


def least_bits(prices: Prices, model: RotatedModel, board: Board) -> float:
    """Bits a weight of the smallest artifact there can be."""
    bands = bands_of(prices, board, model.config)
    return 8 * _size(model, _merged(bands, _narrowest(bands))) / decoder(model.config).parameters


def planes_of(prices: Prices, widths: Widths, config: ModelConfig) -> dict[str, int]:
    """Two int8 planes for the most expensive inputs, one after the other, as long as rounding the next one to
    int8 would cause more than a share of the divergence that is predicted with these `widths`.

    So the same input may have one plane beside narrow weights, whose errors drown its own, and two beside
    wide ones. Linears with one input share the decision; 1 plane by default.
    """
    planes: dict[str, int] = {}
    # Prices know an input by the first linear that reads it.
    readers = {
        layer_name(number, group.first.role): [layer_name(number, linear.role) for linear in group.linears]
        for number, layer in enumerate(decoder(config).layers)
        for group in layer.groups
    }
    left = predicted(prices, widths, planes)
    for name, price in sorted(prices.activations.items(), key=lambda item: item[1], reverse=True):
        if price <= _PLANE_SHARE * left:
            break
        left -= price
        planes.update(dict.fromkeys(readers.get(name, [name]), 2))
    return planes


def predicted(prices: Prices, widths: Widths, planes: dict[str, int]) -> float:
    """The sum of the prices of these bands and of rounding the inputs, nats a token. Unknown widths cost
    nothing."""
    total = sum(price for name, price in prices.activations.items() if planes.get(name, 1) == 1)
    for measured in prices.bands:
        for band in widths[measured.linear]:
            if band.start <= measured.start < band.start + band.rows:
                total += measured.prices.get(band.bits, 0.0)
    return total


def _narrowest(bands: list[Band]) -> Allocation:
    return Allocation(tuple(min(band.options, key=lambda option: option.bytes) for band in bands))


def _size(model: RotatedModel, widths: Widths) -> int:
    return packed_size(plan_artifact(model, widths, {}, {}, None))


def _merged(bands: list[Band], allocation: Allocation) -> Widths:
    """Neighbouring bands of one width become one."""
    chosen = zip(bands, allocation.options, strict=True)
    widths: Widths = {}
    for (linear, bits), run in groupby(chosen, key=lambda pair: (pair[0].linear, pair[1].bits)):
        members = [band for band, _ in run]
        band = StoredBand(members[0].start, sum(member.rows for member in members), bits)
        widths[linear] = (*widths.get(linear, ()), band)
    return widths


def plan_artifact(
    model: RotatedModel, widths: Widths, planes: dict[str, int], files: dict[str, bytes], recipe: str | None
) -> ArtifactPlan:
    """The artifact that these bands make. `planes` by linear, 1 where none is given."""
    config = model.config
    tree = decoder(config)
    linears = {
        name: LinearSpec(one.rows, one.cols, widths[name], planes.get(name, 1), one.bias)
        for name, one in tree.linears()
    }
    return ArtifactPlan(
        config=config,
        linears=linears,
        parameters=tree.parameters,
        arrays={name: (norm.size,) for name, norm in tree.kept_norms()},
        rotation=model.rotation,
        online=model.online,
        files=files,
        recipe=recipe,
    )


def _fixed_bytes(model: RotatedModel, small: int) -> int:
    """Bytes that no choice of widths changes, counting every linear's tables at all `small` widths below
    8."""
    linears = dict(decoder(model.config).linears())
    widths: Widths = {name: (StoredBand(0, one.rows, 8),) for name, one in linears.items()}
    plan = plan_artifact(model, widths, {}, {}, None)
    streams = sum(stream_bytes(widths[name], one.cols)[0] for name, one in linears.items())
    tables = len(linears) * aligned(small * TABLES * 16)
    return packed_size(plan) - streams + tables

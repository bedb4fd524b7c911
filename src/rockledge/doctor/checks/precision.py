"""Operations that cost more than their share: what to give more bits, or two planes."""

from collections.abc import Iterator

from rockledge.doctor.case import Case
from rockledge.doctor.finding import Change, Finding, Requantised, TwoPlanes
from rockledge.doctor.operation import Operation
from rockledge.doctor.reading import Reading
from rockledge.formats.bands import WIDTHS
from rockledge.model.block import layer_name

_MUCH = 0.08  # of the divergence
_WORTH = 1e-3  # nats a token: below, nothing is worth a change
_MOST = 6
_SHOWN = 6  # bands of a linear


def check_precision(case: Case) -> Iterator[Finding]:
    """Advice about the operations that explain most of the divergence."""
    if case.runs.reference is None or case.kl is None or not case.kl > _WORTH:
        return
    by_name = {reading.operation.name: reading for reading in case.readings}
    costly = sorted(case.explained.items(), key=lambda item: -item[1])
    for name, explained in costly[:_MOST]:
        if explained >= _MUCH and name in by_name:
            yield _advice(case, by_name[name], explained)


def _advice(case: Case, reading: Reading, explained: float) -> Finding:
    operation = reading.operation
    cause, mend, change = {"weights": _weights, "inputs": _inputs, "cache": _cache}[operation.kind](
        case, reading
    )
    return Finding(
        check="precision",
        place=operation.name,
        severity="advice",
        cause=cause,
        mend=mend,
        change=change,
        explained=explained,
    )


def _weights(case: Case, reading: Reading) -> tuple[str, str, Change | None]:
    name = reading.operation.name
    spec = case.artifact.linears[name]
    widths = sorted({band.bits for band in spec.bands})
    wider = next((bits for bits in WIDTHS if bits > widths[0]), None)
    cause = (
        f"its weights have {' and '.join(map(str, widths))} bits, {reading.snr_db:.1f} dB above their noise"
    )
    if wider is None:
        return cause, "it has as many bits as there are; leave it", None
    bands = " ".join(f"{band.rows}x{max(band.bits, wider)}" for band in spec.bands[:_SHOWN])
    more = " ..." if len(spec.bands) > _SHOWN else ""
    return (
        cause,
        f"give it at least {wider} bits: `{name}: {bands}{more}` in the recipe",
        Requantised((name,), wider),
    )


def _inputs(case: Case, reading: Reading) -> tuple[str, str, Change | None]:
    names = _readers(case, reading.operation)
    cause = (
        f"they are rounded to {8 * case.artifact.planes(names[0])} bits, {reading.snr_db:.1f} dB above "
        "their noise; "
        f"the largest value of a token takes {reading.headroom_bits:.1f} bits from the others"
    )
    if case.artifact.planes(names[0]) == 2:
        return cause, "they have two planes already; leave them", None
    return cause, f"give them two int8 planes: `planes: {{{names[0]}: 2}}` in the recipe", TwoPlanes(names)


def _readers(case: Case, operation: Operation) -> tuple[str, ...]:
    """The linears that read an input."""
    if operation.layer is None:
        return (case.spec.tree.head.role,)
    layer = case.spec.tree.layers[operation.layer]
    group = next(group for group in layer.groups if group.place == operation.role)
    return tuple(layer_name(operation.layer, linear.role) for linear in group.linears)


def _cache(case: Case, reading: Reading) -> tuple[str, str, Change | None]:
    cause = f"queries, keys and values are int8, {reading.snr_db:.1f} dB above their noise at worst"
    if case.basis is not None and not case.basis.model.steps.balance:
        return cause, "quantise with the step `balance: true`, which evens out their channels", None
    return cause, "nothing in a recipe changes that", None

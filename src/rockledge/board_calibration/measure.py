"""Probes, repeated in turn: whatever disturbs the machine for a moment disturbs a repeat of each."""

import time
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from rockledge.board_calibration.engine_work import engine_steps
from rockledge.board_calibration.native_work import Prepare, attends, linears, row_operation
from rockledge.board_calibration.probes import Attends, EngineStep, Linears, Probe, RowOperation
from rockledge.board_calibration.weights import UInt8, huge_share, random_weights

Advance = Callable[[int, int], None]
_RUNS = 2  # that are timed of a repeat, after one that is not

Samples = Mapping[Probe, list[float]]


@dataclass(frozen=True)
class Weights:
    """What is streamed: so many `bytes`, in a file in `folder`, perhaps in small pages where others would be
    used as well."""

    bytes: int
    folder: Path
    small_pages: bool = False


@dataclass(frozen=True)
class Repeated:
    """`seconds` of every probe, several for each repeat; `huge_share` of the weights in huge pages."""

    seconds: Samples
    huge_share: float | None


def measured(
    probes: Collection[Probe], *, threads: int, weights: Weights, repeats: int, advance: Advance
) -> Repeated:
    """Runs every probe so often. NativeError, UnwritableError."""
    found: dict[Probe, list[float]] = {probe: [] for probe in probes}
    with ExitStack() as stack:
        data = stack.enter_context(
            random_weights(weights.bytes, weights.folder, small_pages=weights.small_pages)
        )
        most = max((probe.sequences for probe in found if isinstance(probe, EngineStep)), default=1)
        steps = {
            vocab: stack.enter_context(engine_steps(threads, most, vocab))
            for vocab in {probe.vocab for probe in found if isinstance(probe, EngineStep)}
        }
        work = {probe: _prepare(probe, data) for probe in found if not isinstance(probe, EngineStep)}
        for number in range(repeats):
            for probe, seconds in found.items():
                if isinstance(probe, EngineStep):
                    seconds.append(steps[probe.vocab](probe.sequences))
                else:
                    seconds += _timed(work[probe])
            advance(number + 1, repeats)
        return Repeated(found, huge_share(data))


def _prepare(probe: Linears | RowOperation | Attends, data: UInt8) -> Prepare:
    if isinstance(probe, Linears):
        return linears(probe, data)
    return row_operation(probe) if isinstance(probe, RowOperation) else attends(probe)


def _timed(prepare: Prepare) -> list[float]:
    found = []
    with ExitStack() as stack:
        run = prepare(stack)
        run()
        for _ in range(_RUNS):
            begun = time.perf_counter()
            run()
            found.append(time.perf_counter() - begun)
    return found

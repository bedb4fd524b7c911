"""The whole calibration of a machine: everything measured, as the facts file has it."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rockledge import __version__
from rockledge.board.cycles import cycles_fact
from rockledge.board.facts import Fact, check_facts
from rockledge.board.facts_file import WIDTHS, Measured, MeasuredFacts, Npu, streamed_fact
from rockledge.board.step_time import (
    DECODE_MAC,
    DECODE_SCORE,
    DRAW,
    OPERATION,
    OUTPUT,
    PROMPT_OUTPUT,
    SEQUENCE,
    STEP,
)
from rockledge.board_calibration import probes as p
from rockledge.board_calibration.constants import ALL_CORES, BANDWIDTHS, constants
from rockledge.board_calibration.machine import (
    cache_facts,
    chip_name,
    clock_hz,
    described,
    kernel_release,
    processor_name,
    ram_bytes,
)
from rockledge.board_calibration.measure import Advance, Samples, Weights, measured
from rockledge.board_calibration.npu_work import npu_facts, npu_times
from rockledge.board_calibration.spread import spread_of
from rockledge.board_calibration.weights import streamed_bytes
from rockledge.errors import UsageError
from rockledge.runtime.available_memory import available_bytes
from rockledge.runtime.cores import default_cores, started_on
from rockledge.runtime.npu_system import look

REPEATS: Final = 15

HOW: Final[dict[str, tuple[str, str]]] = {
    OPERATION: ("s", "4-bit linears of three shapes from memory: what does not depend on their size"),
    OUTPUT: ("cycles/element", "the same linears: what depends on their outputs"),
    PROMPT_OUTPUT: (
        "cycles/element",
        "4-bit linears of two shapes over 256 rows: what depends on their outputs",
    ),
    **{
        cycles_fact(bits, rows): (
            "cycles/weight",
            f"a {bits}-bit linear of 512 x 512 in a core's cache, {rows} rows",
        )
        for bits in WIDTHS
        for rows in (1, 2)
    },
    **{
        streamed_fact(bits, rows): (
            "cycles/weight",
            f"{bits}-bit linears of 8192 x 2048 from memory, {rows} rows",
        )
        for bits in WIDTHS
        for rows in p.FEW_ROWS
    },
    **{
        f"cpu_unpack_cycles_per_weight_{bits}_bits": (
            "cycles/weight",
            f"a {bits}-bit linear of 1024 x 2048 over 16 and 256 rows: what does not depend on rows",
        )
        for bits in WIDTHS
    },
    "cpu_prefill_macs_per_cycle": ("MAC/cycle/core", "the same at all widths: what depends on rows"),
    **dict.fromkeys(
        (*BANDWIDTHS.values(), ALL_CORES), ("B/s", "8-bit linears of 8192 x 2048 from memory, 1 row")
    ),
    "cpu_norm_cycles": ("cycles/element", "norms of 128 x 2048"),
    "cpu_quantise_cycles": ("cycles/element", "quantisation of 128 x 2048"),
    "cpu_hadamard_cycles": ("cycles/element", f"that after a Hadamard transform in blocks of {p.HADAMARD}"),
    "cpu_gate_cycles": ("cycles/element", "SiLU gates of 128 x 2048"),
    "cpu_rope_cycles": ("cycles/element", "rotation of queries and keys of 128 rows"),
    **{
        name: (unit, "attention of a prompt of 256, heads of 64 and of 128")
        for name, unit in (
            ("cpu_attention_cycles_per_score", "cycles/score"),
            ("cpu_attention_cycles_per_score_mac", "cycles/MAC"),
            ("cpu_attention_cycles_per_value_mac", "cycles/MAC"),
        )
    },
    **{
        name: (unit, "attention of 1 query after 255 others, heads of 64 and of 128")
        for name, unit in ((DECODE_SCORE, "cycles/score"), (DECODE_MAC, "cycles/MAC"))
    },
    STEP: ("s", "steps of an engine over a random model of one layer, without the core's operations"),
    SEQUENCE: ("s", "the same with 4 sequences and with 1"),
    DRAW: ("cycles/element", "the same with {1} and with {0} logits".format(*p.VOCABULARIES)),
}
"""The unit of every fact that is computed from probes, and how it was measured."""


@dataclass(frozen=True)
class Calibration:
    """What was measured, and why no NPU was, "" where one was."""

    facts: MeasuredFacts
    no_npu: str


def calibrate(
    folder: Path, *, repeats: int = REPEATS, advance: Advance = lambda done, of: None
) -> Calibration:
    """Measures this machine; a file of weights lies in `folder` meanwhile. NativeError, UnwritableError."""
    run = CpuRun(folder)
    run.repeat(repeats, advance)
    system = look().npu
    with started_on(run.cores):
        npu = npu_times(repeats, None if system is None else float(system.current))
    if isinstance(npu, str):
        return Calibration(run.facts(), npu)
    found = npu_facts(npu)
    if (reason := impossible(found)) is not None:
        return Calibration(run.facts(), reason)
    return Calibration(run.facts(found), "")


def impossible(npu: Npu) -> str | None:
    """Why the figures of a real NPU cannot be true: its driver lied of its clock, or a core hardly works.
    What the CPU was measured to be is not lost with them."""
    facts = {
        name: Fact(one.value, one.unit, one.how, "measured here", one.spread)
        for name, one in npu.facts.items()
    }
    try:
        check_facts({} if npu.virtual else facts)
    except UsageError as error:
        return f"its figures cannot be true: {error}"
    return None


class CpuRun:
    """Probes of the CPU, repeated as often as one likes, and the facts that follow from all repeats."""

    def __init__(self, folder: Path, *, small_pages: bool = False) -> None:
        self.cores = default_cores()
        self._weights = Weights(weights_bytes(self.cores), folder, small_pages)
        self._samples: dict[p.Probe, list[float]] = {
            probe: [] for probe in p.probes(len(self.cores), self._weights.bytes)
        }
        self._huge: float | None = None
        self._clocks: list[float] = []
        self._repeats = 0

    def repeat(self, repeats: int, advance: Advance = lambda done, of: None) -> None:
        """So often more. NativeError, UnwritableError."""

        def watch(done: int, of: int) -> None:
            self._clocks.append(clock_hz(self.cores))
            advance(done, of)

        with started_on(self.cores):
            found = measured(
                self._samples,
                threads=len(self.cores),
                weights=self._weights,
                repeats=repeats,
                advance=watch,
            )
        for probe, seconds in found.seconds.items():
            self._samples[probe] += seconds
        self._huge = found.huge_share
        self._repeats += repeats

    def facts(self, npu: Npu | None = None) -> MeasuredFacts:
        """What a file of it holds."""
        threads = len(self.cores)
        return MeasuredFacts(
            program=__version__,
            processor=processor_name(),
            kernel=kernel_release(os.uname().release),
            threads=threads,
            ram_bytes=ram_bytes(),
            chip=chip_name(),
            facts=cpu_facts(self._samples, threads, self._weights.bytes, self._clocks, self._repeats)
            | cache_facts(self.cores[0]),
            npu=npu,
            machine=described() | {"weights_in_huge_pages": self._huge},
        )


def weights_bytes(cores: Sequence[int]) -> int:
    """How many bytes are streamed on this machine."""
    caches = [one.value for one in cache_facts(cores[0]).values()]
    return streamed_bytes(int(max(caches, default=0)), available_bytes())


def cpu_facts(
    samples: Samples, threads: int, weights_bytes: int, clocks: Sequence[float], repeats: int
) -> dict[str, Measured]:
    """The facts of the CPU from seconds of probes; `clocks`: its clock in Hz as it was stated meanwhile."""
    hz = max(clocks)

    def chosen(choose: Callable[[Any], float]) -> dict[str, float]:
        return constants(
            {probe: choose(seconds) for probe, seconds in samples.items()}, threads, hz, weights_bytes
        )

    units = {name: unit for name, (unit, _) in HOW.items()}
    how = {name: text for name, (_, text) in HOW.items()}
    counted = "threads that run models here: one for each physical core of the fastest kind"
    return {
        "cpu_cores": Measured(float(threads), "cores", counted, (float(threads),) * 2, 1),
        "cpu_hz": Measured(
            hz, "Hz", "the highest that the system stated meanwhile", (min(clocks), hz), len(clocks)
        ),
        **spread_of(chosen, units, how, repeats),
    }

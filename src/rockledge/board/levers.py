"""What can be done about heat, and what each costs: settings of an engine with modelled speed and watts.

A setting is a number of threads, a share of the prompt rows that would ride along in a step, a clock of the
NPU, how many sequences are worked on at once, and a share of time in which nothing is begun. None of them is
told to be cheaper than another: speed is the formula of `time.py` and the parts of a prompt's time
(`prefill.py`), watts are those of `power.py`, and the ladder is the upper edge of all settings together.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Final

from rockledge.board.boards import Board
from rockledge.board.facts import Fact
from rockledge.board.power import core_watts, memory_watts, npu_watts
from rockledge.board.time import band_time

PROMPT_SHARES: Final = (1.0, 0.5, 0.25)
MOST_REST: Final = 0.95
"""Of the time: a board that must not work at all is no server."""


@dataclass(frozen=True)
class Setting:
    """`threads` that work on a step; `prompt_share`: of the rows of prompts beside answers that a step would
    have; `npu_hz`: highest clock of the NPU, 0 where there is none; `sequences`: worked on at once; `rest`:
    share of time between steps."""

    threads: int
    prompt_share: float
    npu_hz: float
    sequences: int
    rest: float = 0.0


@dataclass(frozen=True)
class PromptParts:
    """Seconds of a prompt of `tokens` with all threads at `cpu_hz` and the NPU at its full clock: what NPU,
    bus and CPU beside it would take alone for the linears, of which the longest counts; what is waited for in
    any case; what only the CPU does. Without an NPU all of it is the CPU's."""

    tokens: int
    cpu_hz: float
    npu: float
    bus: float
    beside: float
    waited: float
    cpu: float


@dataclass(frozen=True)
class Demand:
    """What is asked of an engine: answers that are written at once, and whether prompts are there to read."""

    streams: int
    reading: bool

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return self.streams == 0 and not self.reading


@dataclass(frozen=True)
class Work:
    """A model on a board as numbers. `bands`: (bits, rows, cols) of the matrices that a token multiplies
    with, and how many there are of each; `kv_bytes`: read for a token of one sequence; `threads`,
    `sequences`, `npu_hz`: at most; `prompt_time`: share of time that prompts have beside answers;
    `npu_clocks`: that can be set, none where nobody may."""

    board: Board
    bands: tuple[tuple[tuple[int, int, int], int], ...] = field(repr=False)
    kv_bytes: int
    prompt: PromptParts
    threads: int
    sequences: int
    npu_hz: float
    prompt_time: float
    npu_clocks: tuple[float, ...] = ()

    @property
    def full(self) -> Setting:
        """Nothing held back."""
        return Setting(self.threads, 1.0, self.npu_hz, self.sequences)

    def at_clock(self, cpu_hz: float) -> "Work":
        """The same with cores at another clock."""
        hz = replace(self.board.facts["cpu_hz"], value=cpu_hz, spread=None)
        return replace(self, board=replace(self.board, facts={**self.board.facts, "cpu_hz": hz}))


@dataclass(frozen=True)
class Speed:
    """Tokens/s of all answers together and of prompts, and watts above those of an idle board. Modelled."""

    decode_tok_s: float
    prompt_tok_s: float
    watts: float


@dataclass(frozen=True)
class Rung:
    """A setting, what is left of the speed with nothing held back (1: all of it), and its watts over idle."""

    setting: Setting
    kept: float
    watts: float


def with_threads(board: Board, threads: int) -> Board:
    """The board as so many threads see it: fewer cores, and the rate at which so many read."""
    facts = board.facts
    cores, whole = facts["cpu_cores"], facts["cpu_read_bandwidth"]
    if threads >= cores.value:
        return board
    names = {1: "cpu_read_bandwidth_1_core", 2: "cpu_read_bandwidth_2_cores"}
    rate: Fact | None = facts.get(names.get(threads, ""))
    if rate is None:
        rate = whole if threads > 2 else replace(whole, value=whole.value * min(1.0, threads / 2))
    changed = {
        "cpu_cores": replace(cores, value=float(threads), spread=None),
        "cpu_read_bandwidth": replace(rate, value=min(rate.value, whole.value), spread=None),
    }
    return replace(board, facts={**facts, **changed})


def speed(work: Work, setting: Setting, demand: Demand) -> Speed:
    """What a setting gives where this is asked. Where answers are written while prompts are read, both take
    turns."""
    streams = min(demand.streams, setting.sequences)
    turn = 0.0
    if demand.reading:
        turn = 1.0 if streams == 0 else work.prompt_time * setting.prompt_share
    works = 1.0 - setting.rest
    answers = _decode(work, setting.threads, streams) if streams else Speed(0, 0, 0)
    prompts = _prompt(work, setting) if turn else Speed(0, 0, 0)
    return Speed(
        works * (1 - turn) * answers.decode_tok_s,
        works * turn * prompts.prompt_tok_s,
        works * ((1 - turn) * answers.watts + turn * prompts.watts),
    )


def _decode(work: Work, threads: int, streams: int) -> Speed:
    board, power = with_threads(work.board, threads), work.board.power
    seconds = computing = read = 0.0
    for band, count in work.bands:
        time = band_time(*band, board=board, tokens=streams)
        seconds += count * time.ms / 1e3
        computing += count * time.compute_ms / 1e3
        read += count * time.stored_bytes
    cache = float(streams * work.kv_bytes)
    seconds += cache / board.value("cpu_read_bandwidth")
    watts = threads * core_watts(power, board.value("cpu_hz"), min(1.0, computing / seconds))
    return Speed(streams / seconds, 0.0, watts + memory_watts(power, (read + cache) / seconds))


def _prompt(work: Work, setting: Setting) -> Speed:
    part, board, power = work.prompt, work.board, work.board.power
    slower = work.threads / setting.threads * part.cpu_hz / board.value("cpu_hz")
    npu = part.npu * work.npu_hz / setting.npu_hz if part.npu else 0.0
    seconds = max(npu, part.bus, part.beside * slower) + part.waited + part.cpu * slower
    computing = min(1.0, (part.beside + part.cpu) * slower / seconds)
    watts = setting.threads * core_watts(power, board.value("cpu_hz"), computing)
    if npu:
        watts += memory_watts(power, part.bus / seconds * board.value("npu_bus_bandwidth"))
        watts += npu_watts(power, setting.npu_hz, npu / seconds)
    return Speed(0.0, part.tokens / seconds, watts)


def ladder(work: Work, demand: Demand) -> tuple[Rung, ...]:
    """From nothing held back down to almost nothing left: the settings of which no mixture of others keeps
    more at the same watts. The first is always the full one."""
    best = speed(work, work.full, demand)
    full = Rung(work.full, 1.0, best.watts)
    if demand.idle:
        return (full,)
    found = [full]
    for setting in _settings(work, demand):
        now = speed(work, setting, demand)
        parts = [
            n / b
            for n, b in ((now.decode_tok_s, best.decode_tok_s), (now.prompt_tok_s, best.prompt_tok_s))
            if b
        ]
        found.append(Rung(setting, sum(parts) / len(parts), now.watts))
    return (full, *(rung for rung in _edge(found) if rung.setting != full.setting))


def most_watts(work: Work) -> float:
    """Over idle, of anything that can be asked of the engine, with nothing held back."""
    demands = (
        Demand(work.sequences, True), Demand(work.sequences, False), Demand(1, False), Demand(0, True),
    )  # fmt: skip
    return max(speed(work, work.full, demand).watts for demand in demands)


def _settings(work: Work, demand: Demand) -> Iterator[Setting]:
    mixed = demand.reading and demand.streams > 0
    shares = PROMPT_SHARES if mixed else (1.0,)
    clocks = (work.npu_clocks if demand.reading else ()) or (work.npu_hz,)
    sequences = range(max(1, min(work.sequences, demand.streams)), 0, -1)
    for threads, share, hz, most, rest in product(
        range(work.threads, 0, -1), shares, clocks, sequences, (0.0, MOST_REST)
    ):
        limit = work.sequences if most >= demand.streams else most
        yield Setting(threads, share, hz, limit, rest)


def _edge(rungs: list[Rung]) -> list[Rung]:
    """The upper concave edge of kept speed over watts, from its highest point down."""
    edge: list[Rung] = []
    for rung in sorted(rungs, key=lambda one: (one.watts, -one.kept)):
        if edge and rung.kept <= edge[-1].kept:
            continue
        while len(edge) > 1 and _slope(edge[-2], edge[-1]) <= _slope(edge[-1], rung):
            edge.pop()
        edge.append(rung)
    return edge[::-1]


def _slope(low: Rung, high: Rung) -> float:
    return (high.kept - low.kept) / max(high.watts - low.watts, 1e-9)

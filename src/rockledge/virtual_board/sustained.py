"""A load that goes on for long on a virtual board, governed or not, as fast as it can be computed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rockledge.board.governor import TARGET_CELSIUS, Decision, Gains, Reading, State, govern, safe_watts
from rockledge.board.levers import Demand, Rung, Setting, Work, ladder, most_watts
from rockledge.virtual_board.board import VirtualBoard

READ_SECONDS = 1.0


@dataclass(frozen=True)
class Second:
    """One reading and what came until the next: temperature and the highest since the last one, clock of the
    big cores, setting, tokens/s."""

    seconds: float
    celsius: float
    highest: float
    cpu_hz: float
    setting: Setting
    decode_tok_s: float
    prompt_tok_s: float
    watts: float
    throttled: int
    trouble: str


def governed(
    board: VirtualBoard,
    work: Work,
    demands: Callable[[float], Demand],
    seconds: float,
    *,
    target: float = TARGET_CELSIUS,
    gains: Gains | None = None,
    sense: Callable[[VirtualBoard], Reading] | None = None,
) -> Iterator[Second]:
    """The governor in the loop. `demands`: what is asked at a time; `sense`: how the board is read, for
    sensors that lie."""
    ladders: dict[Demand, tuple[Rung, ...]] = {}
    most, safe = most_watts(work), safe_watts(work.board, target)
    state = State()
    while board.seconds < seconds:
        demand = demands(board.seconds)
        if demand not in ladders:
            ladders[demand] = ladder(work, demand)
        rungs = ladders[demand]
        reading = sensed(board) if sense is None else sense(board)
        decision, state = govern(
            reading, state, rungs, target=target, most_watts=most, safe=safe, gains=gains
        )
        yield _second(board, decision.setting, demand, decision)


def constant(
    board: VirtualBoard, setting: Setting, demands: Callable[[float], Demand], seconds: float
) -> Iterator[Second]:
    """One setting all the time."""
    while board.seconds < seconds:
        yield _second(board, setting, demands(board.seconds), None)


def sensed(board: VirtualBoard) -> Reading:
    """What an honest sensor says."""
    return Reading(board.seconds, board.sensed, board.throttle.state > 0)


def _second(board: VirtualBoard, setting: Setting, demand: Demand, decision: Decision | None) -> Second:
    done = board.advance(READ_SECONDS, setting, demand)
    return Second(
        board.seconds,
        done.celsius,
        done.highest,
        board.cpu_hz,
        setting,
        done.speed.decode_tok_s,
        done.speed.prompt_tok_s,
        done.speed.watts,
        board.throttle.events,
        "" if decision is None else decision.trouble,
    )

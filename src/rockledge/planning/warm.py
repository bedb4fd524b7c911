"""A plan after an hour: what a cooling in a room leaves of decode and prefill, governed and not."""

from dataclasses import dataclass

from rockledge.board.governor import TARGET_CELSIUS
from rockledge.board.levers import Demand, Work
from rockledge.board.sustained import Sustained, sustained
from rockledge.board.thermal import Cooling
from rockledge.planning.plan import Plan
from rockledge.planning.ranges import Range
from rockledge.runtime.modelled_work import work_of

AMBIENT_CELSIUS = 25.0
"""Of the room where nobody says another."""


@dataclass(frozen=True)
class Warm:
    """Tokens/s before heat counts (`cold`), and after an hour with the governor and without it; `celsius`:
    how warm the chip would get if nobody held it back."""

    cold: Range
    governed: Range
    ungoverned: Range
    celsius: float


@dataclass(frozen=True)
class WarmPlan:
    """With one cooling. `decode`: of each stream, at the end of the context with all streams busy, None for a
    model that writes nothing; `prefill`: of the prompt of a plan."""

    cooling: Cooling
    decode: Warm | None
    prefill: Warm


def warm_plans(plan: Plan, cooling: str | None = None, ambient: float = AMBIENT_CELSIUS) -> list[WarmPlan]:
    """With `cooling`, or with each that is known of the board's chip; empty where none is. The plan must fit
    at some precision. UsageError for a cooling that is not known."""
    coolings = plan.board.chip.coolings
    chosen = list(coolings.values()) if cooling is None else [plan.board.cooling(cooling)]
    if not chosen:
        return []
    work = _work(plan)
    decode = plan.speed.decode(plan.context, plan.streams) if plan.writes else None
    prefill = plan.speed.prefill(plan.prompt_tokens)
    return [
        WarmPlan(
            cooling=one,
            decode=None if decode is None else _warm(decode, _left(work, plan.streams, one, ambient)),
            prefill=_warm(prefill, _left(work, 0, one, ambient)),
        )
        for one in chosen
    ]


def _left(work: Work, streams: int, cooling: Cooling, ambient: float) -> Sustained:
    return sustained(work, Demand(streams, reading=streams == 0), cooling, ambient, TARGET_CELSIUS)


def _warm(cold: Range, left: Sustained) -> Warm:
    return Warm(
        cold=cold,
        governed=cold.map(lambda speed: speed * left.governed),
        ungoverned=cold.map(lambda speed: speed * left.ungoverned),
        celsius=left.celsius,
    )


def _work(plan: Plan) -> Work:
    board = plan.board
    clocks = board.operating_points.get("npu_hz")
    return work_of(
        board,
        plan.config,
        plan.speed.bands,
        context=plan.tokens,
        threads=int(board.value("cpu_cores")),
        sequences=plan.streams,
        npu=plan.speed.prompts().plan is not None,
        npu_clocks=clocks.hz if clocks else (),
    )

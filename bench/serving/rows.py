"""The table's rows, what each needs of a server, and the goals as data."""

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from bench.serving import disturbances, measures
from bench.serving.amounts import Amounts, Figures
from bench.serving.prompts import Prompts
from bench.serving.servers import OURS, THEIRS, Server, Size

Measure = Callable[[Server, Prompts, Amounts], Coroutine[None, None, Figures]]

BEFORE = "before"  # ours as it was before issue 19
COUNTS = (1, 4, 8, 16)
CONSTRAINED = {1: 0.95, 8: 0.9}
"""Streams at once, and what answers of a given form should keep of the speed of free ones (issue 20)."""
SHAPES = ("135m", "1b")


@dataclass(frozen=True)
class Row:
    """`streams` at once at most, each of at most `tokens(amounts)`; `shapes` have the row."""

    measure: Measure
    streams: int
    longest: tuple[str, ...]  # fields of Amounts that add up to a sequence
    shapes: tuple[str, ...] = ("135m",)

    def size(self, amounts: Amounts) -> Size:
        """What the server must have room for; a multiple of 256 tokens, with some to spare."""
        tokens = sum(getattr(amounts, name) for name in self.longest)
        return Size(self.streams, -(-(tokens + 64) // 256) * 256)


ROWS: dict[str, Row] = {
    **{
        f"streams_{count}": Row(partial(measures.streams, count=count), count, ("prompt", "answer"), SHAPES)
        for count in COUNTS
    },
    **{
        f"constrained_{count}": Row(partial(measures.constrained, count=count), count, ("question", "answer"))
        for count in CONSTRAINED
    },
    "shared_prefix": Row(measures.shared_prefix, 4, ("system", "question")),
    "conversation": Row(measures.conversation, 4, ("history", "history")),
    "longer_prompts": Row(measures.longer_prompts, 4, ("history", "question"), SHAPES),
    "interruption": Row(disturbances.interruption, 5, ("long_prompt", "prompt"), SHAPES),
    "single_tokens": Row(measures.single_tokens, 1, ("answer", "answer", "answer", "answer")),
    "large_bodies": Row(disturbances.large_bodies, 4, ("prompt", "answer")),
    "crowd": Row(disturbances.crowd, 8, ("prompt", "answer")),
}


@dataclass(frozen=True)
class Goal:
    """A figure of ours in a row, over that of the engine `over` (None: as it is), and what it should be."""

    row: str
    figure: str
    wanted: float
    over: str | None = None
    at_most: bool = True

    def value(self, engines: Mapping[str, Any]) -> float | None:
        """None where one of the figures was not measured, or could not be."""
        ours = engines.get(OURS, {}).get(self.figure)
        other = 1.0 if self.over is None else engines.get(self.over, {}).get(self.figure)
        return None if ours is None or other is None else float(ours / other)

    def met(self, engines: Mapping[str, Any]) -> bool | None:
        """Whether it is reached; None where there is no value."""
        value = self.value(engines)
        if value is None:
            return None
        return value <= self.wanted if self.at_most else value >= self.wanted

    def text(self) -> str:
        """The goal in words."""
        what = self.figure if self.over is None else f"{self.figure} over {self.over}'s"
        return f"{what} at {'most' if self.at_most else 'least'} {self.wanted:g}"


_TIMES = ("ttft_p50_ms", "ttft_p99_ms", "gap_p50_ms", "gap_p99_ms")
GOALS = (
    Goal("streams_1", "tok_s", 1.0, over=BEFORE, at_most=False),
    Goal("streams_8", "tok_s", 2.0, over=THEIRS, at_most=False),
    *(
        Goal(f"streams_{count}", time, 0.6 if count == 8 and "p99" in time else 1.0, over=THEIRS)
        for count in COUNTS
        for time in _TIMES
    ),
    *(
        Goal(f"constrained_{count}", f"{form}_over_free", share, at_most=False)
        for count, share in CONSTRAINED.items()
        for form in measures.FORMS
    ),
    Goal("shared_prefix", "later_over_first", 0.1),
    Goal("conversation", "turn_5_over_fresh", 1.3),
    Goal("longer_prompts", "turn_5_over_fresh", 1.3),
    Goal("interruption", "gap_p99_over_undisturbed", 2.5),
    Goal("interruption", "ttft_over_alone", 1.5),
    Goal("single_tokens", "beyond_model_ms", 8.0),
    Goal("large_bodies", "health_p99_ms", 50.0),
    Goal("large_bodies", "memory_mb", 100.0),
    Goal("crowd", "beside_less_a_step_over_alone", 2.0),
)

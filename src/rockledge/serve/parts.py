"""What the engine produced for one choice of one request, in the units that answers are made of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rockledge.runtime.sampling import TokenLogprob


@dataclass(frozen=True)
class ScoredToken:
    """A token, the natural logarithm of its probability (None: nothing before it), alternatives."""

    id: int
    logprob: float | None
    top: tuple[TokenLogprob, ...]


@dataclass(frozen=True)
class Part:
    """A stretch of one choice: text, tokens (empty without logprobs), how many were generated and which; in
    the last one why it ended, and the stop string that ended it, if one did."""

    choice: int
    text: str
    tokens: tuple[ScoredToken, ...]
    generated: int
    finish: str | None
    ids: tuple[int, ...] = ()
    stop: str | None = None


@dataclass(frozen=True)
class Usage:
    """Token counts of a request, all choices together; `cached` of the prompts' were not read again. The
    prompts go without `dropped` messages. Seconds are those of the engine's steps that read the prompts, and
    of those that only wrote answers (of several choices the first's)."""

    prompt: int
    completion: int
    cached: int = 0
    dropped: int = 0
    prompt_seconds: float = 0.0
    answer_seconds: float = 0.0

    def body(self) -> dict[str, Any]:
        """The `usage` object of an answer."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached},
            **({"dropped_messages": self.dropped} if self.dropped else {}),
        }


def join_choice(parts: Iterable[Part], choice: int) -> Part:
    """All parts of one choice as one."""
    mine = [part for part in parts if part.choice == choice]
    return Part(
        choice=choice,
        text="".join(part.text for part in mine),
        tokens=tuple(token for part in mine for token in part.tokens),
        generated=sum(part.generated for part in mine),
        finish=mine[-1].finish,
        ids=tuple(token for part in mine for token in part.ids),
        stop=mine[-1].stop,
    )

"""One streamed answer on the terminal, and its speed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from rockledge.cli.sizes import counted

if TYPE_CHECKING:
    from rockledge.runtime.engine import Engine
    from rockledge.runtime.sampling import Sampling


class Printer(Protocol):
    """What shows an answer to people."""

    def print(self, text: str = "", end: str = "\n") -> None:
        """Part of the answer, at once."""


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Answer:
    """A finished answer: text, why it ended ("stop", "length"; "interrupted" by the user), token counts and
    speeds."""

    text: str
    finish: str
    prompt_tokens: int
    completion_tokens: int
    prefill_tok_s: float
    decode_tok_s: float

    def body(self) -> dict[str, Any]:
        """The keys of `--json`."""
        return {
            "text": self.text,
            "finish_reason": self.finish,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "prefill_tok_s": round(self.prefill_tok_s, 2),
            "decode_tok_s": round(self.decode_tok_s, 2),
        }

    def speed(self) -> str:
        """One line for people."""
        return (
            f"[prefill: {counted(self.prompt_tokens, 'token')} at {self.prefill_tok_s:.0f} tok/s, "
            f"decode: {counted(self.completion_tokens, 'token')} at {self.decode_tok_s:.1f} tok/s]"
        )


def stream_answer(
    engine: Engine,
    prompt: Sequence[int],
    terminal: Printer,
    *,
    max_tokens: int,
    sampling: Sampling,
    stop: Sequence[str] = (),
    cancelled: Callable[[], bool] = _never,
) -> Answer:
    """Generates from `prompt` (token ids) and prints the text as it arrives; stops before the next step
    once `cancelled` is true.

    Raises:
        ContextError: the prompt does not fit.
    """
    text, finish, tokens = "", "", 0
    room = max(engine.context - len(prompt), 1)
    pieces = engine.generate(
        prompt, max_tokens=min(max_tokens, room), sampling=sampling, stop=stop, cancelled=cancelled
    )
    for piece in pieces:
        terminal.print(piece.text, end="")
        text += piece.text
        tokens += len(piece.ids)
        finish = piece.finish or finish
    terminal.print()
    stats = pieces.stats
    return Answer(
        text=text,
        finish=finish or "interrupted",
        prompt_tokens=len(prompt),
        completion_tokens=tokens,
        prefill_tok_s=stats.prefill_tok_s,
        decode_tok_s=stats.decode_tok_s,
    )

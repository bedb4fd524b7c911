"""Runs the engine for one choice and hands its pieces on as parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rockledge.runtime.engine import Engine
from rockledge.runtime.piece import Piece
from rockledge.serve.line import Cancelled
from rockledge.serve.options import Options
from rockledge.serve.parts import Part, ScoredToken


def generate(
    engine: Engine,
    choice: int,
    prompt: Sequence[int],
    max_tokens: int | None,
    logprobs: int | None,
    options: Options,
    cancelled: Cancelled,
) -> Iterator[Part]:
    """Continues `prompt` by at most `max_tokens` tokens (None: as many as the context holds)."""
    room = engine.context - len(prompt)
    pieces = engine.generate(
        prompt,
        max_tokens=room if max_tokens is None else min(max_tokens, room),
        sampling=options.sampling,
        stop=options.stop,
        logprobs=logprobs,
        ignore_eos=options.ignore_eos,
        cancelled=cancelled,
    )
    for piece in pieces:
        yield Part(choice, piece.text, _scored(piece), len(piece.ids), piece.finish)


def _scored(piece: Piece) -> tuple[ScoredToken, ...]:
    if piece.logprobs is None:
        return ()
    tops = piece.top or ((),) * len(piece.ids)
    return tuple(
        ScoredToken(token, logprob, top)
        for token, logprob, top in zip(piece.ids, piece.logprobs, tops, strict=True)
    )


def echo(
    engine: Engine, choice: int, prompt: Sequence[int], logprobs: int | None, finish: str | None
) -> Part:
    """The prompt itself as a part, with the log-likelihood of every token after the first when asked."""
    tokens: tuple[ScoredToken, ...] = ()
    if logprobs is not None:
        tokens = (
            ScoredToken(prompt[0], None, ()),
            *(ScoredToken(s.id, s.logprob, s.top) for s in engine.score(prompt, top=logprobs)),
        )
    return Part(choice, engine.tokenizer.decode(prompt), tokens, 0, finish)

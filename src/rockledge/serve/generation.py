"""What a call asks of the engine, and the engine's outputs as parts of its choices.

Every prompt has `n` choices, the best of `best_of` candidates by the sum of their tokens' log probabilities.
All candidates of all prompts are requests of their own, which run at once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from rockledge.model.tokenizer import Tokenizer
from rockledge.runtime.piece import Piece, RequestStats
from rockledge.runtime.request import Failure, Output, Request
from rockledge.runtime.sampling import Sampling
from rockledge.serve.errors import ApiError, shutting_down
from rockledge.serve.front import Front
from rockledge.serve.options import Options
from rockledge.serve.parts import Part, ScoredToken, Usage, join_choice


@dataclass(frozen=True)
class Generation:
    """`prompts`: token ids; `max_tokens`: of every prompt's answers, 0 for none; `echo`: answers begin with
    their prompts; `logprobs`: alternatives beside each token, None for no scores; `shown`: special tokens
    that are part of the text; `dropped`: messages that the prompts go without."""

    prompts: tuple[tuple[int, ...], ...]
    max_tokens: tuple[int, ...]
    options: Options
    logprobs: int | None = None
    echo: bool = False
    shown: tuple[int, ...] = ()
    dropped: int = 0

    @property
    def choices(self) -> int:
        """Choices in all."""
        return len(self.prompts) * self.options.n


@dataclass(frozen=True)
class _Role:
    """What a request is for: the scores of a prompt, or a candidate of it."""

    kind: Literal["score", "generate"]
    prompt: int
    candidate: int = 0


def _requests(work: Generation, client: str) -> list[tuple[_Role, Request]]:
    options = work.options
    ranked = options.best_of > options.n
    found = []
    for number, prompt in enumerate(work.prompts):
        shared = Request(
            id="",
            prompt=prompt,
            client=client,
            priority=-options.priority,  # as in vLLM lower goes first
            deadline_s=options.timeout_s,
            logprobs=work.logprobs,
        )
        if work.echo and work.logprobs is not None and len(prompt) > 1:
            found.append((_Role("score", number), replace(shared, kind="score")))
        if work.max_tokens[number]:
            generate = replace(
                shared,
                max_tokens=work.max_tokens[number],
                stop=options.stop,
                shown=work.shown,
                ignore_eos=options.ignore_eos,
                constraint=options.constraint,
                logprobs=0 if ranked and work.logprobs is None else work.logprobs,
            )
            for candidate in range(options.best_of):
                sampling = _of_candidate(options.sampling, candidate)
                found.append((_Role("generate", number, candidate), replace(generate, sampling=sampling)))
    return found


def _of_candidate(sampling: Sampling, candidate: int) -> Sampling:
    """Candidates of one seed have the seeds after it, so that the first is what it would be alone."""
    return (
        sampling if sampling.seed is None else replace(sampling, seed=(sampling.seed + candidate) % (1 << 64))
    )


@dataclass
class _Prompt:
    """A prompt while its candidates are at work: how many are `open`, whether the prompt itself is out
    (`echoed`), parts that wait for either, tokens and sums of log probabilities by candidate."""

    open: int
    echoed: bool
    held: list[Part] = field(default_factory=list)
    tokens: dict[int, int] = field(default_factory=dict)
    sums: dict[int, float] = field(default_factory=dict)


class Answers:
    """The parts of one call's choices as they come. Close it at the end in any case."""

    def __init__(
        self,
        front: Front,
        tokenizer: Tokenizer,
        work: Generation,
        client: str,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        """Submits what there is to do. `on_close` is called once, when all is over.

        Raises:
            ApiError: as `Front.open`.
        """
        self._front = front
        self._on_close: Callable[[], None] | None = on_close
        self._tokenizer = tokenizer
        self._work = work
        self._stats: dict[int, RequestStats] = {}
        self._generated = 0
        asked = _requests(work, client)
        self._roles = [role for role, _ in asked]
        self._call = front.open([request for _, request in asked]) if asked else None

    @property
    def usage(self) -> Usage:
        """What it has taken so far; every prompt counts once."""
        prompts = sum(len(prompt) for prompt in self._work.prompts)
        stats = self._stats.values()
        return Usage(
            prompts,
            self._generated,
            cached=sum(found.cached_tokens for found in stats),
            dropped=self._work.dropped,
            prompt_seconds=sum(found.prefill_seconds for found in stats),
            answer_seconds=sum(found.decode_seconds for found in stats),
        )

    def close(self) -> None:
        """Takes what has not ended out of the engine. Closing twice is allowed."""
        if self._call is not None:
            self._call.close()
        on_close, self._on_close = self._on_close, None
        if on_close is not None:
            on_close()

    async def parts(self) -> AsyncIterator[Part]:
        """Parts of the choices, each choice's in order.

        Raises:
            ApiError: what ended the first of the requests that failed.
        """
        states = []
        for number in range(len(self._work.prompts)):
            mine = [role for role in self._roles if role.prompt == number]
            scored = any(role.kind == "score" for role in mine)
            states.append(_Prompt(sum(role.kind == "generate" for role in mine), echoed=not scored))
            if not scored:
                for part in self._begin(number, ()):
                    yield part
        if self._call is None:
            return
        async for place, output in self._call.outputs():
            role = self._roles[place]
            if output.failure is not None:
                raise error_of(output.failure, self._front.draining.is_set())
            for part in self._of_output(role, output, states[role.prompt]):
                yield part

    def _begin(self, number: int, tokens: tuple[ScoredToken, ...]) -> list[Part]:
        """What the choices of a prompt begin with: the prompt itself, or nothing."""
        work = self._work
        finish = None if work.max_tokens[number] else "length"
        if not work.echo and finish is None:
            return []
        prompt, text = work.prompts[number], ""
        if work.echo:
            text = self._tokenizer.decode(prompt)
            if work.logprobs is not None:
                tokens = (ScoredToken(prompt[0], None, ()), *tokens)
        first = number * work.options.n
        return [Part(first + choice, text, tokens, 0, finish) for choice in range(work.options.n)]

    def _of_output(self, role: _Role, output: Output, state: _Prompt) -> list[Part]:
        if output.stats is not None and role.candidate == 0:
            self._stats[role.prompt] = output.stats
        begun: list[Part] = []
        if role.kind == "score":
            scored = tuple(ScoredToken(score.id, score.logprob, score.top) for score in output.scores)
            begun = self._begin(role.prompt, scored)
            state.echoed = True
        else:
            state.open -= output.last
            if output.piece is not None:
                state.held.append(self._part(role, output.piece, state))
        return [*begun, *self._released(role.prompt, state)]

    def _part(self, role: _Role, piece: Piece, state: _Prompt) -> Part:
        before = state.tokens.get(role.candidate, 0)
        state.tokens[role.candidate] = before + len(piece.ids)
        state.sums[role.candidate] = state.sums.get(role.candidate, 0.0) + sum(piece.logprobs or ())
        self._generated += len(piece.ids)
        if piece.finish == "deadline" and not state.tokens[role.candidate]:
            raise self._too_late()
        if piece.finish == "cancelled":
            raise ApiError("the answer was cancelled", status=500)
        return Part(
            choice=role.prompt * self._work.options.best_of + role.candidate,
            text=piece.text,
            tokens=_scored(piece) if self._work.logprobs is not None else (),
            generated=len(piece.ids),
            # Clients know no other reason for an answer that is not whole.
            finish="length" if piece.finish == "deadline" else piece.finish,
            ids=piece.ids,
            stop=piece.stop,
        )

    def _released(self, number: int, state: _Prompt) -> list[Part]:
        """Parts of candidates that nothing has to wait for any more."""
        n, best_of = self._work.options.n, self._work.options.best_of
        if not state.echoed or (best_of > n and state.open):
            return []
        held, state.held = state.held, []
        if best_of == n or not held:
            return held
        order = sorted(state.sums, key=lambda candidate: (-state.sums[candidate], candidate))[:n]
        best = (join_choice(held, number * best_of + candidate) for candidate in order)
        return [replace(part, choice=number * n + rank) for rank, part in enumerate(best)]

    def _too_late(self) -> ApiError:
        return ApiError(
            f"the answer had not begun after {self._work.options.timeout_s:g} s, the request's timeout",
            status=504,
            code="timeout",
        )


def _scored(piece: Piece) -> tuple[ScoredToken, ...]:
    if piece.logprobs is None:
        return ()
    tops = piece.top or ((),) * len(piece.ids)
    return tuple(
        ScoredToken(token, logprob, top)
        for token, logprob, top in zip(piece.ids, piece.logprobs, tops, strict=True)
    )


def error_of(failure: Failure, ending: bool) -> ApiError:
    """The failure of a request as the answer of the call; `ending`: the server is about to."""
    if ending:
        return shutting_down()
    if failure.kind == "deadline":
        return ApiError(failure.message, status=504, code="timeout")
    if failure.kind == "context":
        return ApiError(failure.message, code="context_length_exceeded")
    if failure.kind == "usage":
        return ApiError(failure.message)
    if failure.kind == "damaged":
        return ApiError(failure.message, status=503, code="artifact_damaged")
    if failure.kind == "disk":
        return ApiError(failure.message, status=503, code="disk_failed")
    return ApiError(failure.message, status=500)

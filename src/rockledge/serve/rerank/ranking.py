"""What a call asks of a reranker, and the scores that come of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_json

from rockledge.runtime.request import Output, Request
from rockledge.runtime.sampling import Sampling
from rockledge.serve.errors import ApiError, context_length_exceeded
from rockledge.serve.rerank.reranker import Reranker
from rockledge.serve.residency.room import require_repeatable
from rockledge.serve.served_model import ServedModel

_CERTAIN = 1e30  # a bias after which no other token can be drawn


@dataclass(frozen=True)
class RankWork:
    """`prompts`: one for each document; `reply` makes the body of the answer of their scores, from 0 to 1, in
    order, and the number of tokens read. The rest is as for `EmbeddingWork`."""

    model: ServedModel
    reranker: Reranker
    prompts: tuple[tuple[int, ...], ...]
    reply: Callable[[list[float], int], dict[str, Any]]
    priority: int = 0
    timeout_s: float | None = None
    keep_alive_s: float | None = None
    begun: Callable[[], None] = lambda: None

    def requests(self) -> list[Request]:
        """Two for each document: its answer is "yes", and it is "no". What the first of them has read is
        there for the second."""
        return [
            Request(
                "",
                prompt,
                max_tokens=1,
                sampling=Sampling(logit_bias=((token, _CERTAIN),)),
                logprobs=0,
                ignore_eos=True,
                priority=-self.priority,
                deadline_s=self.timeout_s,
            )
            for prompt in self.prompts
            for token in (self.reranker.yes, self.reranker.no)
        ]

    def body(self, outputs: Sequence[Sequence[Output]]) -> bytes:
        """The answer as JSON.

        Raises:
            ApiError: 504 where the request's timeout was over before an answer.
        """
        found = [self._logprob(each) for each in outputs]
        scores = [
            1 / (1 + math.exp(min(no - yes, 700.0))) for yes, no in zip(*[iter(found)] * 2, strict=True)
        ]
        return to_json(self.reply(scores, sum(map(len, self.prompts))))

    def _logprob(self, outputs: Sequence[Output]) -> float:
        pieces = [output.piece for output in outputs if output.piece is not None]
        logprobs = [logprob for piece in pieces for logprob in piece.logprobs or ()]
        if not logprobs:
            late = any(piece.finish == "deadline" for piece in pieces)
            what = "the scores were not there after the request's timeout" if late else "it was cancelled"
            raise ApiError(what, status=504 if late else 500, code="timeout" if late else None)
        return logprobs[0]


def reranker_prompts(
    model: ServedModel,
    reranker: Reranker,
    query: str,
    documents: Sequence[str],
    *,
    document_tokens: int | None,
    most: int | None,
) -> tuple[tuple[int, ...], ...]:
    """The prompts of a query and its documents. `most`: those of documents that are too long are cut to so
    many tokens, below 0 to what the context holds.

    Raises:
        ApiError: `context_length_exceeded`; 400 for a query that is too long for so many documents.
    """
    model.require_short(query, "query")
    require_repeatable(len(model.tokenizer.encode_plain(query)), len(documents), "query")
    room = None if most is None else model.context - 1 if most < 0 else min(most, model.context - 1)
    found = []
    for number, document in enumerate(documents):
        place = f"documents[{number}]"
        if room is None and document_tokens is None:
            model.require_short(document, place)
        prompt = reranker.prompt(query, document, document_tokens=document_tokens, room=room)
        if len(prompt) >= model.context:
            raise context_length_exceeded(len(prompt), model.context, place)
        found.append(prompt)
    return tuple(found)

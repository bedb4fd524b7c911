"""What a loaded model can be asked: its tokens, as many as fit, and only what it has a head for."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rockledge.errors import ContextError, UsageError
from rockledge.model.config import ModelConfig
from rockledge.runtime.constraints.constraint import require_llguidance
from rockledge.runtime.request import Request

Int32 = npt.NDArray[np.int32]


@dataclass(frozen=True)
class RequestChecks:
    """Of the model `name` with a context of so many tokens."""

    name: str
    config: ModelConfig
    context: int

    def prompt(self, request: Request) -> Int32:
        """The prompt int32 [tokens] of a request that can run. Raises UsageError and ContextError."""
        if request.kind == "embed":
            self.require_headless()
        else:
            self.require_head()
        prompt = self.tokens(request.prompt)
        if request.max_tokens < 0:
            raise UsageError(f"max_tokens is {request.max_tokens}; give 0 or more")
        if request.logprobs is not None and request.logprobs < 0:
            raise UsageError(f"logprobs is {request.logprobs} alternatives; give 0 or more, or None")
        request.sampling.check_tokens(self.config.vocab)
        if request.constraint is not None:
            if request.kind != "generate":
                raise UsageError(f"a constraint has no effect on a request of the kind {request.kind!r}")
            if not self.config.eos:
                raise UsageError("this model has no end-of-text token; answers of a given form need one")
            require_llguidance()
        return prompt

    def require_head(self) -> None:
        """UsageError where the model has no language head."""
        if self.config.headless:
            raise UsageError(
                f"{self.name} has no language head: it can neither generate nor score; ask it for embeddings"
            )

    def require_headless(self) -> None:
        """UsageError where the model has one."""
        if not self.config.headless:
            raise UsageError(
                f"{self.name} has a language head and was not made for embeddings; use a model that "
                "was, such as Qwen3-Embedding"
            )

    def tokens(self, ids: Sequence[int]) -> Int32:
        """`ids` as an array, once they are known to be tokens of this model that fit into the context. Raises
        UsageError and ContextError."""
        if len(ids) == 0:
            raise UsageError("the prompt has no tokens; give at least one")
        if len(ids) > self.context:
            raise ContextError(
                f"the prompt has {len(ids)} tokens, expected at most {self.context}; shorten the prompt or "
                f"load with a larger context (this model takes up to {self.config.context})"
            )
        tokens = np.asarray(ids, dtype=np.int64)
        wrong = tokens[(tokens < 0) | (tokens >= self.config.vocab)]
        if wrong.size:
            raise UsageError(
                f"token id {wrong[0]} is outside this model's vocabulary (0 to {self.config.vocab - 1})"
            )
        return tokens.astype(np.int32)

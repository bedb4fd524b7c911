"""`options` of Ollama's bodies: what they say about sampling, and what cannot change an answer.

Source: "Valid Parameters and Values" in https://docs.ollama.com/modelfile, and `Options` in
https://github.com/ollama/ollama/blob/main/api/types.go.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Annotated, Any, ClassVar

from rockledge.runtime.constraints.constraint import Constraint
from rockledge.runtime.sampling import Sampling
from rockledge.serve.http.log_throttle import LogThrottle
from rockledge.serve.options import (
    LEAST_PENALTY,
    LEAST_TOP_P,
    MAX_TOKENS,
    MOST_PENALTY,
    STOPS,
    UNLIMITED,
    Options,
)
from rockledge.serve.schema import Field, Reading, Schema, flag, mistake, number, whole, wrong

log = LogThrottle(logging.getLogger(__name__))

ANY_SEED = -1
WHOLE_CONTEXT = -1
"""Of `repeat_last_n`: penalties look at all tokens, as they always do here."""
USUAL_LAST_N = 64
"""Ollama's own `repeat_last_n`, which clients send without meaning anything by it."""

MOST_TEMPERATURE = 100.0


def _only(neutral: float, why: str) -> Field:
    """A number that has no effect, or is refused."""

    def read(value: Any, reading: Reading) -> Any:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value != neutral:
            raise mistake("refused", name="", why=f"must be {neutral:g}: {why}; leave it out")
        return value

    return Field(read, {"type": "number", "const": neutral})


# How Ollama loads a model, and what it keeps when it shifts a context; none of it changes an answer.
LOADING = frozenset(
    {
        "draft_num_predict",
        "embedding_only",
        "f16_kv",
        "logits_all",
        "low_vram",
        "main_gpu",
        "mirostat_eta",
        "mirostat_tau",
        "num_batch",
        "num_gpu",
        "num_keep",
        "num_thread",
        "numa",
        "use_mlock",
        "use_mmap",
        "vocab_only",
    }
)


class OllamaOptions(Schema):
    """The fields that mean something here. Others mean nothing to Ollama either, which skips what it does not
    know."""

    tolerant: ClassVar[bool] = True
    harmless: ClassVar[frozenset[str]] = LOADING

    num_ctx: Annotated[int, whole(0, MAX_TOKENS)] = 0
    num_predict: Annotated[int | None, whole(-MAX_TOKENS, MAX_TOKENS)] = None
    temperature: Annotated[float, number(0.0, MOST_TEMPERATURE)] = 1.0
    top_k: Annotated[int, whole(0, MAX_TOKENS, -1)] = 0
    top_p: Annotated[float, number(0.0, 1.0)] = 1.0
    min_p: Annotated[float, number(0.0, 1.0)] = 0.0
    seed: Annotated[int | None, whole(-(1 << 63), (1 << 64) - 1)] = None
    stop: Annotated[tuple[str, ...], STOPS] = ()
    repeat_penalty: Annotated[float, number(LEAST_PENALTY, MOST_PENALTY)] = 1.0
    presence_penalty: Annotated[float, number(-2.0, 2.0)] = 0.0
    frequency_penalty: Annotated[float, number(-2.0, 2.0)] = 0.0
    repeat_last_n: Annotated[int, whole(-1, MAX_TOKENS)] = WHOLE_CONTEXT
    penalize_newline: Annotated[bool, flag()] = True
    mirostat: Annotated[float, _only(0, "this server does not sample by mirostat")] = 0
    typical_p: Annotated[float, _only(1, "this server does not sample by typicality")] = 1
    tfs_z: Annotated[float, _only(1, "this server does not sample tail-free")] = 1

    def check(self, context: int) -> None:
        """Raises ApiError for what the penalties cannot do; says in the log what a client will not get."""
        if self.num_ctx > context:
            log.warning(
                "a client asks for a context of %d tokens (num_ctx); this server's is %d, which --ctx sets",
                self.num_ctx,
                context,
            )
        if not self._penalised:
            return
        if self.repeat_last_n not in (WHOLE_CONTEXT, USUAL_LAST_N) and self.repeat_last_n < context:
            raise wrong(
                "options.repeat_last_n", f"{WHOLE_CONTEXT}, or left out: penalties look at all tokens"
            )
        if not self.penalize_newline:
            raise wrong("options.penalize_newline", "true, or left out: penalties spare no token")

    @property
    def _penalised(self) -> bool:
        """Whether penalties are asked for; 0 looks at no tokens."""
        off = (self.repeat_penalty, self.presence_penalty, self.frequency_penalty) == (1.0, 0.0, 0.0)
        return not off and self.repeat_last_n != 0

    def sampling(self, defaults: Sampling) -> Sampling:
        """The same as the engine takes it. What is not named stays as the model has it, as in Ollama."""
        named: dict[str, Any] = {
            "temperature": self.temperature,
            "top_k": max(self.top_k, 0),
            "top_p": max(self.top_p, LEAST_TOP_P),
            "min_p": self.min_p,
        }
        given = {name: value for name, value in named.items() if name in self.model_fields_set}
        if self._penalised:
            given |= {
                "repetition_penalty": self.repeat_penalty,
                "presence_penalty": self.presence_penalty,
                "frequency_penalty": self.frequency_penalty,
            }
        seed = None if self.seed in (None, ANY_SEED) else self.seed
        return replace(defaults, seed=None if seed is None else seed % (1 << 64), **given)

    def generation(
        self, model: str, defaults: Sampling, *, stream: bool, constraint: Constraint | None = None
    ) -> Options:
        """All that a generation is asked for, under the name by which the request calls its model."""
        unlimited = self.num_predict is None or self.num_predict <= 0
        return Options(
            model=model,
            max_tokens=UNLIMITED if unlimited else self.num_predict,
            sampling=self.sampling(defaults),
            stop=self.stop,
            ignore_eos=False,
            stream=stream,
            include_usage=False,
            continuous_usage=False,
            n=1,
            best_of=1,
            priority=0,
            timeout_s=None,
            constraint=constraint,
        )

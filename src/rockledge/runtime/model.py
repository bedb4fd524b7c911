"""The simple interface: text or messages in, text out."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt

from rockledge.errors import UsageError
from rockledge.runtime.engine import Engine
from rockledge.runtime.sampling import Sampling

Message = Mapping[str, str]
"""A turn of a conversation: "role" ("system", "user" or "assistant") and "content"."""


class Model:
    """A loaded artifact that answers. `engine` is the same model token by token."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        threads: int | None = None,
        ctx: int | None = None,
        memory: int | None = None,
        memory_budget: int | None = None,
        kernel: str = "auto",
        npu: str = "auto",
        chat_template: str | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> "Model":
        """Loads the artifact directory `path`; the settings and errors are those of `Engine.load`."""
        engine = Engine.load(
            path,
            threads=threads,
            ctx=ctx,
            memory=memory,
            memory_budget=memory_budget,
            kernel=kernel,
            npu=npu,
            chat_template=chat_template,
            chat_template_kwargs=chat_template_kwargs,
        )
        return cls(engine)

    def close(self) -> None:
        """Frees the model; also done by leaving a `with` block."""
        self.engine.close()

    def __enter__(self) -> "Model":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def tokens(
        self, prompt: str | Sequence[Message], chat_template_kwargs: Mapping[str, Any] | None = None
    ) -> list[int]:
        """Token ids of a text to be continued, or of a conversation to be answered next, whose template also
        gets the variables `chat_template_kwargs`.

        Raises UsageError for messages to a model without a chat template.
        """
        engine = self.engine
        if isinstance(prompt, str):
            return engine.tokenizer.encode(prompt, bos=True)
        if engine.chat is None:
            raise UsageError(f"{engine.name} has no chat template; give a text instead of messages")
        # The template writes its own beginning-of-text token.
        text = engine.chat.render([dict(message) for message in prompt], switches=chat_template_kwargs)
        return engine.tokenizer.encode(text, bos=False)

    def embed(self, texts: str | Sequence[str], *, dimensions: int | None = None) -> npt.NDArray[np.float32]:
        """The embedding of a text fp32 [hidden], or of several fp32 [texts, hidden], each of length 1.

        `dimensions` as for `Engine.embed`. Raises UsageError for a model with a language head, ContextError
        for too long a text.
        """
        engine = self.engine
        if isinstance(texts, str):
            return engine.embed(engine.tokenizer.encode_whole(texts), dimensions=dimensions)
        found = [self.embed(text, dimensions=dimensions) for text in texts]
        return np.stack(found) if found else np.empty((0, dimensions or engine.config.hidden), np.float32)

    @overload
    def generate(
        self,
        prompt: str | Sequence[Message],
        *,
        max_tokens: int = ...,
        temperature: float = ...,
        top_k: int = ...,
        top_p: float = ...,
        min_p: float = ...,
        seed: int | None = ...,
        stop: Sequence[str] = ...,
        chat_template_kwargs: Mapping[str, Any] | None = ...,
        stream: Literal[False] = ...,
    ) -> str: ...

    @overload
    def generate(
        self,
        prompt: str | Sequence[Message],
        *,
        max_tokens: int = ...,
        temperature: float = ...,
        top_k: int = ...,
        top_p: float = ...,
        min_p: float = ...,
        seed: int | None = ...,
        stop: Sequence[str] = ...,
        chat_template_kwargs: Mapping[str, Any] | None = ...,
        stream: Literal[True],
    ) -> Iterator[str]: ...

    def generate(
        self,
        prompt: str | Sequence[Message],
        *,
        max_tokens: int = 256,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        seed: int | None = None,
        stop: Sequence[str] = (),
        chat_template_kwargs: Mapping[str, Any] | None = None,
        stream: bool = False,
    ) -> str | Iterator[str]:
        """Continues a text, or answers a conversation (a list of messages), by at most `max_tokens` tokens.

        Greedy unless `temperature` is above 0. Ends at an end-of-text token or before a string of `stop`.
        With `stream` the text comes in pieces as it is written. Raises ContextError for too long a prompt.
        """
        pieces = self.engine.generate(
            self.tokens(prompt, chat_template_kwargs),
            max_tokens=max_tokens,
            sampling=Sampling(temperature, top_k, top_p, min_p, seed),
            stop=stop,
        )
        texts = (piece.text for piece in pieces if piece.text)
        return texts if stream else "".join(texts)

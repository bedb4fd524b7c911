"""What the front end knows of the model: read from the artifact's files, never from the running engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from rockledge.artifact import Artifact
from rockledge.errors import ArtifactError
from rockledge.model.chat import ChatTemplate
from rockledge.model.embedding_facts import EmbeddingFacts, stored_facts
from rockledge.model.markup import Markup
from rockledge.model.tokenizer import Tokenizer
from rockledge.runtime.sampling import Sampling
from rockledge.runtime.sampling_defaults import CONVERSATION, default_sampling
from rockledge.serve.conversation.dialect import Dialect
from rockledge.serve.details import NO_DETAILS, Details
from rockledge.serve.errors import ApiError, context_length_exceeded
from rockledge.serve.fill_in_the_middle import Filling
from rockledge.serve.rerank.reranker import Reranker


@dataclass(frozen=True)
class ServedModel:
    """`context`: most tokens of prompt and answer together; `vocab`: token ids are below it; `bos`: what an
    empty prompt begins with; `sampling`: of requests that name none; `aliases`: names that requests may call
    it by besides; `control_tokens`: whether those in the texts of messages count as such; `details`: what is
    said of it; `generates`: whether it has a language head; `pools`: whether it makes embeddings, of `hidden`
    numbers, of which `embedding` says more; `origin`: its repository on the Hub, "" where that is unknown."""

    name: str
    tokenizer: Tokenizer
    chat: ChatTemplate | None
    context: int
    vocab: int
    bos: int | None
    sampling: Sampling = CONVERSATION
    aliases: tuple[str, ...] = ()
    control_tokens: bool = False
    generates: bool = True
    pools: bool = False
    details: Details = NO_DETAILS
    hidden: int = 0
    embedding: EmbeddingFacts = field(default_factory=EmbeddingFacts)
    origin: str = ""

    @classmethod
    def of(
        cls,
        artifact: Artifact,
        name: str,
        context: int,
        chat: ChatTemplate | None,
        aliases: Sequence[str] = (),
        control_tokens: bool = False,
    ) -> ServedModel:
        """The model of an artifact, with the template of conversations that was chosen for it."""
        files = artifact.files
        return cls(
            name=name,
            tokenizer=Tokenizer.from_files(files),
            chat=chat,
            context=context,
            vocab=artifact.config.vocab,
            bos=artifact.config.bos,
            sampling=default_sampling(files, CONVERSATION),
            aliases=tuple(dict.fromkeys(alias for alias in aliases if alias != name)),
            control_tokens=control_tokens,
            details=Details.of(artifact),
            generates=not artifact.config.headless,
            pools=artifact.config.headless,
            hidden=artifact.config.hidden,
            embedding=stored_facts(files),
            origin=_hub_id(artifact),
        )

    @property
    def names(self) -> tuple[str, ...]:
        """All that requests may call it by."""
        return (self.name, *self.aliases)

    @cached_property
    def dialect(self) -> Dialect | None:
        """How it speaks; None without a template of conversations."""
        return None if self.chat is None else Dialect.of(self.chat, self.tokenizer)

    @cached_property
    def filling(self) -> Filling | None:
        """How it is asked for what stands between two texts; None where it has no tokens for that."""
        return Filling.of(self.tokenizer)

    @cached_property
    def reranker(self) -> Reranker | None:
        """How it is asked whether a document fits a query; None where it was not trained for that."""
        return Reranker.of(self.tokenizer, (*self.names, self.origin)) if self.generates else None

    @cached_property
    def markup(self) -> Markup | None:
        """Its control tokens, where texts of messages are data; None where they are not."""
        if self.chat is None or self.control_tokens:
            return None
        return Markup(self.tokenizer, self.chat.sources)

    def encode(self, text: str, param: str, *, bos: bool) -> list[int]:
        """The token ids of a text. One that cannot fit in the context is refused by its bytes alone, before
        any work; one that is known to fit only by its tokens is the caller's to refuse.

        Raises:
            ApiError: `context_length_exceeded`.
        """
        self.require_short(text, param)
        return self.tokenizer.encode(text, bos=bos)

    def encode_whole(self, text: str, param: str, most: int | None = None) -> tuple[int, ...]:
        """The token ids of a text that is to be embedded, in which names of special tokens are text unless
        they count in this server; `most` as for `fit_whole`.

        Raises:
            ApiError: `context_length_exceeded`.
        """
        if most is None:
            self.require_short(text, param)
        ids = self.tokenizer.encode_whole(text, plain=not self.control_tokens)
        return self.fit_whole(ids, param, most)

    def fit_whole(self, ids: Sequence[int], param: str, most: int | None = None) -> tuple[int, ...]:
        """The token ids of a whole text that fit in the context. With `most`, those of a longer text are cut
        at its end to so many (below 0: what the context holds), and what the model reads at the end of every
        text stays.

        Raises:
            ApiError: `context_length_exceeded`; 400 where `most` leaves no room for the text.
        """
        room = self.context if most is None or most < 0 else min(most, self.context)
        if len(ids) <= room:
            return tuple(ids)
        if most is None:
            raise context_length_exceeded(len(ids), self.context, param)
        ending = self.tokenizer.ending
        kept = ending if ending and tuple(ids[-len(ending) :]) == ending else ()
        if len(kept) >= room:
            raise ApiError(f"{room} tokens hold nothing of the text beside those that end it", param=param)
        return (*ids[: room - len(kept)], *kept)

    def require_generates(self) -> None:
        """Refuses a request for text.

        Raises:
            ApiError: 400.
        """
        if not self.generates:
            raise ApiError(
                f"'{self.name}' has no language head: it can neither generate nor score; ask it for "
                "embeddings, at /v1/embeddings or /v1/rerank",
                param="model",
            )

    def require_pools(self) -> None:
        """Refuses a request for embeddings.

        Raises:
            ApiError: 400.
        """
        if not self.pools:
            raise ApiError(
                f"'{self.name}' has a language head and was not made for embeddings; ask a model that was, "
                "such as Qwen3-Embedding",
                param="model",
            )

    def require_ranks(self) -> None:
        """Refuses a request to rank documents.

        Raises:
            ApiError: 400.
        """
        if not self.pools and self.reranker is None:
            raise ApiError(
                f"'{self.name}' makes no embeddings and is not known as a reranker; ask a model that is one, "
                "such as Qwen3-Embedding or Qwen3-Reranker",
                param="model",
            )

    def require_fills(self, param: str) -> Filling:
        """How it fills in the middle; `param` asks for it.

        Raises:
            ApiError: 400 where it cannot.
        """
        if self.filling is None:
            raise ApiError(
                f"'{self.name}' has no tokens for filling in the middle, so '{param}' is not supported; "
                "leave it out, or ask a model that was trained for it, such as Qwen2.5-Coder",
                param=param,
                code="unsupported_parameter",
            )
        return self.filling

    def require_dimensions(self, dimensions: int | None) -> None:
        """Refuses embeddings of a length that the model was not trained for.

        Raises:
            ApiError: 400.
        """
        if dimensions is None or self.embedding.may_be(dimensions, self.hidden):
            return
        cut = self.embedding.cut
        shorter = f", or cut to {cut}" if cut else ": it was not trained for shorter ones"
        raise ApiError(
            f"'dimensions' is {dimensions}, but '{self.name}' makes embeddings of {self.hidden}{shorter}",
            param="dimensions",
        )

    def require_short(self, text: str, param: str) -> None:
        """Refuses a text that cannot fit in the context by its bytes alone."""
        least = self.tokenizer.least_tokens(text)
        if least > self.context:
            raise context_length_exceeded(least, self.context, param, least=True)


def _hub_id(artifact: Artifact) -> str:
    """The repository that it was made from; "" where its report does not say, or cannot be read: nobody needs
    it to answer."""
    try:
        source = (artifact.report or {}).get("source")
    except ArtifactError:
        return ""
    return str(source.get("hub_id") or "") if isinstance(source, dict) else ""

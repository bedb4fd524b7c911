"""What is known of a model that makes embeddings besides its weights: how texts that are searched for and
texts that are searched begin, and how short its embeddings may be cut.

An artifact keeps it in `embedding.json`.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rockledge.model.special_tokens import json_object

EMBEDDING = "embedding.json"
SENTENCE_TRANSFORMERS = "config_sentence_transformers.json"

_QUERY = ("query",)
_DOCUMENT = ("document", "passage", "corpus")


@dataclass(frozen=True)
class EmbeddingFacts:
    """`query` and `document`: what is put in front of such a text. Embeddings may be cut to any of the
    `lengths`, and to `least` numbers or more; a model that was not trained for it has neither."""

    query: str = ""
    document: str = ""
    lengths: tuple[int, ...] = ()
    least: int | None = None

    def may_be(self, length: int, hidden: int) -> bool:
        """Whether embeddings of `hidden` numbers may be cut to so many."""
        shorter = length in self.lengths or (self.least is not None and self.least <= length)
        return length == hidden or (0 < length < hidden and shorter)

    @property
    def cut(self) -> str:
        """The shorter lengths, as a part of a sentence."""
        every = [] if self.least is None else [f"{self.least} or more"]
        return " or ".join([*map(str, sorted(self.lengths)), *every])

    def file(self) -> bytes:
        """The contents of `embedding.json`."""
        return json.dumps(
            {"query": self.query, "document": self.document, "lengths": self.lengths, "least": self.least},
            indent=2,
        ).encode()


# Models whose files do not say it all. Qwen3-Embedding: "MRL Support" in the README of
# https://huggingface.co/Qwen/Qwen3-Embedding-0.6B, "user-defined output dimensions ranging from 32 to 1024";
# its prompts are those of its config_sentence_transformers.json, which GGUF files do not have.
_KNOWN: Mapping[str, EmbeddingFacts] = {
    "qwen3-embedding": EmbeddingFacts(
        query="Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:",
        least=32,
    )
}


def known_facts(name: str) -> EmbeddingFacts:
    """What is known of a model of that name."""
    plain = re.sub(r"[\s_]+", "-", name.lower())
    return next((facts for known, facts in _KNOWN.items() if known in plain), EmbeddingFacts())


def read_facts(name: str, config: Mapping[str, Any], prompts: Mapping[str, Any]) -> EmbeddingFacts:
    """From the `prompts` of config_sentence_transformers.json, and from what vLLM reads in config.json
    (`is_matryoshka`, `matryoshka_dimensions`: its documentation of pooling models); what they do not say
    comes from the `name`."""
    known = known_facts(name)
    lengths = config.get("matryoshka_dimensions")
    listed = isinstance(lengths, list) and lengths and all(type(length) is int for length in lengths)
    anything = config.get("is_matryoshka") is True and not listed
    return EmbeddingFacts(
        query=_prompt(prompts, _QUERY, known.query),
        document=_prompt(prompts, _DOCUMENT, known.document),
        lengths=tuple(lengths) if listed and lengths is not None else known.lengths,
        least=1 if anything else None if listed else known.least,
    )


def stored_facts(files: Mapping[str, bytes]) -> EmbeddingFacts:
    """From the small files of an artifact; an older one knows nothing. CheckpointError for a damaged file."""
    found = json_object(files, EMBEDDING)
    return EmbeddingFacts(
        query=str(found.get("query", "")),
        document=str(found.get("document", "")),
        lengths=tuple(int(length) for length in found.get("lengths", ())),
        least=found.get("least"),
    )


def _prompt(prompts: Mapping[str, Any], names: tuple[str, ...], default: str) -> str:
    return next((prompts[name] for name in names if isinstance(prompts.get(name), str)), default)

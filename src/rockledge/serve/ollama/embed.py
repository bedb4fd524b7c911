"""`/api/embed`: texts in, embeddings of length 1 out; and `/api/embeddings`, as that was before."""

from __future__ import annotations

from typing import Annotated, Any

from rockledge.serve.embedding import EmbeddingWork
from rockledge.serve.ollama.bodies import OllamaBody
from rockledge.serve.ollama.reply import Loading, Timing
from rockledge.serve.options import MAX_TOKENS
from rockledge.serve.schema import Field, Reading, expected, flag, read_body, text, valid_text, whole, wrong
from rockledge.serve.served_model import ServedModel
from rockledge.serve.texts_or_ids import MOST_TEXTS

ALL_THAT_FITS = -1


def _input(value: Any, reading: Reading) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(item, str) for item in texts):
        raise expected("a string or a list of strings")
    if len(texts) > MOST_TEXTS:
        raise expected(f"at most {MOST_TEXTS} texts")
    return tuple(valid_text(item) for item in texts)


INPUT = Field(
    _input,
    {
        "anyOf": [
            {"type": "string"},
            {"type": "array", "items": {"type": "string"}, "maxItems": MOST_TEXTS},
        ]
    },
)


class EmbedBody(OllamaBody):
    """The body of `/api/embed`. Without texts it asks for the model to be loaded."""

    input: Annotated[tuple[str, ...], INPUT] = ()
    truncate: Annotated[bool, flag()] = True
    dimensions: Annotated[int, whole(0, MAX_TOKENS)] = 0


class EmbeddingsBody(OllamaBody):
    """The body of `/api/embeddings`. Without a text it asks for the model to be loaded."""

    prompt: Annotated[str, text()] = ""


def embed_work(model: ServedModel, body: object, reading: Reading, timing: Timing) -> EmbeddingWork | Loading:
    """What a body of `/api/embed` asks for; texts that are too long are cut at their ends unless it says
    otherwise.

    Raises:
        ApiError: 400 that names the field.
    """
    found = read_body(EmbedBody, body, reading)
    if found.input in ((), ("",)):
        return Loading(model, found.keep_alive, lambda: {"model": found.asked, "embeddings": []})
    model.require_pools()
    model.require_dimensions(found.dimensions or None)
    most = ALL_THAT_FITS if found.truncate else None
    inputs = tuple(_ids(model, given, f"input[{i}]", most) for i, given in enumerate(found.input))
    timing.read()

    def reply(embeddings: list[list[float]], tokens: int) -> dict[str, Any]:
        counted = {**timing.body(), "prompt_eval_count": tokens}
        return {"model": found.asked, "embeddings": embeddings, **counted}

    return EmbeddingWork(
        model,
        inputs,
        reply,
        dimensions=found.dimensions or None,
        keep_alive_s=found.keep_alive,
        begun=timing.loaded,
    )


def embeddings_work(model: ServedModel, body: object, reading: Reading) -> EmbeddingWork | Loading:
    """What a body of `/api/embeddings` asks for.

    Raises:
        ApiError: 400 that names the field.
    """
    found = read_body(EmbeddingsBody, body, reading)
    if not found.prompt:
        return Loading(model, found.keep_alive, lambda: {"embedding": []})
    model.require_pools()
    inputs = (_ids(model, found.prompt, "prompt", ALL_THAT_FITS),)

    def reply(embeddings: list[list[float]], tokens: int) -> dict[str, Any]:
        return {"embedding": embeddings[0]}

    return EmbeddingWork(model, inputs, reply, keep_alive_s=found.keep_alive)


def _ids(model: ServedModel, given: str, place: str, most: int | None) -> tuple[int, ...]:
    if not given:
        raise wrong(place, "text that is not empty")
    return model.encode_whole(given, place, most)

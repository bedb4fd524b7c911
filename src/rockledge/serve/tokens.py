"""`/tokenize` and `/detokenize`: texts and conversations as token ids, and back, as vLLM and llama.cpp have
them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import FastAPI, Request
from fastapi.responses import Response

from rockledge.serve.api import Api
from rockledge.serve.conversation.body import ConversationBody
from rockledge.serve.conversation.generation import chat_prompt
from rockledge.serve.errors import ApiError
from rockledge.serve.options import is_id
from rockledge.serve.schema import Field, Reading, Schema, expected, flag, read_body, text
from rockledge.serve.served_model import ServedModel


def _ids(value: Any, reading: Reading) -> list[int]:
    if not isinstance(value, list) or not all(is_id(item, reading.vocab) for item in value):
        raise expected(f"a list of token ids (0 to {reading.vocab - 1})")
    return value


IDS = Field(_ids, {"type": "array", "items": {"type": "integer", "minimum": 0}})


class TextBody(Schema):
    """A text to be tokenized: `prompt` of vLLM gets what texts of the model begin with, `content` of
    llama.cpp does not, unless the request says otherwise."""

    model: Annotated[str | None, text()] = None
    prompt: Annotated[str | None, text()] = None
    content: Annotated[str | None, text()] = None
    add_special_tokens: Annotated[bool | None, flag()] = None
    add_special: Annotated[bool | None, flag()] = None
    return_token_strs: Annotated[bool, flag()] = False
    with_pieces: Annotated[bool, flag()] = False


class MessagesBody(ConversationBody):
    """A conversation to be tokenized."""

    model: Annotated[str | None, text()] = None
    return_token_strs: Annotated[bool, flag()] = False
    with_pieces: Annotated[bool, flag()] = False


class TokensBody(Schema):
    """Token ids to be turned into text."""

    model: Annotated[str | None, text()] = None
    tokens: Annotated[list[int], IDS]


def add_tokens(app: FastAPI, api: Api) -> None:
    """The two addresses."""

    @app.post("/tokenize", openapi_extra=api.takes(TextBody, MessagesBody))
    async def to_tokens(request: Request) -> Response:
        return await api.convert(request, tokenize)

    @app.post("/detokenize", openapi_extra=api.takes(TokensBody))
    async def to_text(request: Request) -> Response:
        return await api.convert(request, detokenize)


def tokenize(model: ServedModel, body: object, reading: Reading) -> dict[str, Any]:
    """The answer of `/tokenize`.

    Raises:
        ApiError: 400 that names the field.
    """
    found: TextBody | MessagesBody
    if isinstance(body, dict) and body.get("messages") is not None:
        found = read_body(MessagesBody, body, reading)
        found.check()
        _, ids = chat_prompt(model, found)
    else:
        found = read_body(TextBody, body, reading)
        given = [name for name in ("prompt", "content") if getattr(found, name) is not None]
        if len(given) != 1:
            raise ApiError("one of 'prompt', 'content' and 'messages' must be given", param="prompt")
        whole = found.prompt if found.prompt is not None else found.content
        bos = next((x for x in (found.add_special_tokens, found.add_special) if x is not None), None)
        ids = model.tokenizer.encode(whole or "", bos=given == ["prompt"] if bos is None else bos)
    names = [model.tokenizer.token_bytes(token).decode(errors="replace") for token in ids]
    pairs = [{"id": token, "piece": name} for token, name in zip(ids, names, strict=True)]
    return {
        "tokens": pairs if found.with_pieces else ids,
        "count": len(ids),
        "max_model_len": model.context,
        "token_strs": names if found.return_token_strs else None,
    }


def detokenize(model: ServedModel, body: object, reading: Reading) -> dict[str, Any]:
    """The answer of `/detokenize`; special tokens are written by name.

    Raises:
        ApiError: 400 that names the field.
    """
    found = read_body(TokensBody, body, reading)
    whole = model.tokenizer.decode(found.tokens, skip_special=False)
    return {"prompt": whole, "content": whole}

"""`/infill` of llama.cpp's server (tools/server/README.md): what stands at the cursor, for editors
(llama.vscode, llama.vim)."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, ClassVar

from fastapi import FastAPI, Request
from fastapi.responses import Response

from rockledge.serve.api import Api, Work
from rockledge.serve.errors import context_length_exceeded
from rockledge.serve.generation import Generation
from rockledge.serve.limits import Limits, answer_tokens
from rockledge.serve.openai.completions import ended_by
from rockledge.serve.options import MAX_TOKENS, STOPS, UNLIMITED, SamplingBody
from rockledge.serve.parts import Part, Usage, join_choice
from rockledge.serve.schema import Field, Reading, Schema, expected, read_body, text, valid_text, whole
from rockledge.serve.served_model import ServedModel
from rockledge.serve.style import OPENAI, server_sent

MOST_FILES = 1024
LLAMA_CPP = replace(OPENAI, chunk=server_sent, end="")


def _files(value: Any, reading: Reading) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, list) or len(value) > MOST_FILES:
        raise expected(f"a list of at most {MOST_FILES} objects with a 'text' and a 'filename'")
    found = []
    for item in value:
        if not isinstance(item, dict) or not isinstance(item.get("text"), str):
            raise expected("made of objects with a 'text' and a 'filename'")
        found.append((valid_text(item.get("filename", "tmp")), valid_text(item["text"])))
    return tuple(found)


_FILE = {
    "type": "object",
    "properties": {"text": {"type": "string"}, "filename": {"type": "string"}},
    "required": ["text"],
}
FILES = Field(_files, {"type": "array", "items": _FILE, "maxItems": MOST_FILES})


class InfillBody(SamplingBody):
    """The body of `/infill`."""

    harmless: ClassVar[frozenset[str]] = Schema.harmless | {
        # Where and how fast llama.cpp works, and what it sends of its answer.
        *("cache_prompt", "id_slot", "n_keep", "n_probs", "response_fields", "return_tokens"),
        *("t_max_predict_ms", "t_max_prompt_ms", "timings_per_token"),
        # Several proposals, and a sampler that joins tokens which begin alike: one is made, without it.
        *("n_cmpl", "samplers"),
    }

    input_prefix: Annotated[str, text()]
    input_suffix: Annotated[str, text()]
    input_extra: Annotated[tuple[tuple[str, str], ...], FILES] = ()
    prompt: Annotated[str, text()] = ""
    n_predict: Annotated[int, whole(0, MAX_TOKENS, UNLIMITED)] = UNLIMITED
    n_indent: Annotated[int, whole(0, MAX_TOKENS)] = 0
    stop: Annotated[tuple[str, ...], STOPS] = ()


def add_infill(app: FastAPI, api: Api) -> None:
    """The address."""

    def work(model: ServedModel, body: object, reading: Reading) -> Work:
        return infill_work(model, body, reading, api.limits)

    @app.post("/infill", openapi_extra=api.takes(InfillBody, stream=True))
    async def infill(request: Request) -> Response:
        return await api.answer(request, work, LLAMA_CPP)


def infill_work(model: ServedModel, body: object, reading: Reading, limits: Limits) -> Work:
    """What a body asks for. With `n_predict` 0 the prompt is read, for a request that is yet to come.

    Raises:
        ApiError: 400 that names the field.
    """
    found = read_body(InfillBody, body, reading)
    filling = model.require_fills("input_suffix")
    before, controls = found.input_prefix + found.prompt, model.control_tokens
    model.require_short(before, "input_prefix")
    model.require_short(found.input_suffix, "input_suffix")
    bare = filling.prompt(before, found.input_suffix, control_tokens=controls)
    if len(bare) >= model.context:
        raise context_length_exceeded(len(bare), model.context, "input_prefix")
    # What other files there are fills the rest of the context, the last of them first.
    room = model.context - len(bare) - max(found.n_predict, 1)
    shown = filling.files(found.input_extra, control_tokens=controls)
    shown = shown[max(len(shown) - max(room, 0), 0) :]
    prompt = filling.prompt(before, found.input_suffix, control_tokens=controls, shown=shown)
    options = ended_by(filling, found.one_answer(model.sampling, found.n_predict, found.stop))
    most = answer_tokens(
        max(found.n_predict, 1) if found.n_predict >= 0 else None, model.context - len(prompt), limits
    )
    return Work(model, Generation((prompt,), (most,), options), lambda: InfillReply(model, found))


class InfillReply:
    """Objects with `content`, streamed or not. With `n_indent` the text ends before the first line that is
    indented less; line by line then, for it shows late."""

    def __init__(self, model: ServedModel, body: InfillBody) -> None:
        self._body = body
        self._model = body.model or model.name
        self._text, self._sent, self._generated = "", 0, 0
        self._last: Part | None = None

    def opening(self) -> list[dict[str, Any]]:
        """Nothing: text comes at once."""
        return []

    def chunks(self, part: Part) -> list[dict[str, Any]]:
        """A piece of the text."""
        self._text += part.text
        self._generated += part.generated
        self._last = part
        certain = self._certain(ended=False)
        piece, self._sent = certain[self._sent :], max(self._sent, len(certain))
        return [{"index": 0, "content": piece, "stop": False}] if piece else []

    def closing(self, usage: Usage) -> list[dict[str, Any]]:
        """The rest of the text, and what it took."""
        assert self._last is not None
        return [self._object(self._certain(ended=True)[self._sent :], self._last, self._generated, usage)]

    def whole(self, parts: list[Part], usage: Usage) -> dict[str, Any]:
        """The text and what it took."""
        part = join_choice(parts, 0)
        self._text = part.text
        return self._object(self._certain(ended=True), part, part.generated, usage)

    def _certain(self, *, ended: bool) -> str:
        """What is known to belong to the answer."""
        if self._body.n_predict == 0:
            return ""
        lines = self._text.split("\n")
        for number, found in enumerate(lines[1:], 1):
            inner = found.lstrip(" \t")
            if inner or number < len(lines) - 1:
                if len(found) - len(inner) < self._body.n_indent:
                    return "\n".join(lines[:number]) + "\n"
            elif self._body.n_indent and not ended:
                return "\n".join(lines[:number]) + "\n"
        return self._text

    def _object(self, content: str, part: Part, generated: int, usage: Usage) -> dict[str, Any]:
        reading, writing = 1000 * usage.prompt_seconds, 1000 * usage.answer_seconds
        kind = "word" if part.stop else "eos" if part.finish == "stop" else "limit"
        return {
            "index": 0,
            "content": content,
            "stop": True,
            "model": self._model,
            "stop_type": kind,
            "stopping_word": part.stop or "",
            "truncated": False,
            "tokens_predicted": generated,
            "tokens_evaluated": usage.prompt,
            "tokens_cached": usage.cached,
            "timings": {
                "prompt_n": usage.prompt - usage.cached,
                "prompt_ms": reading,
                "predicted_n": generated,
                "predicted_ms": writing,
            },
        }

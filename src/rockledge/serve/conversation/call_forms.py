"""The forms in which models write calls of functions, and how each is read.

One row a form: the text of a chat template by which it is known, what calls begin and end with, and the
function that reads what is between. Sources: the models' chat templates; llama.cpp's
docs/function-calling.md; vLLM's docs/features/tool_calling.md; ai.google.dev, "FunctionGemma formatting and
best practices".
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rockledge.serve.conversation.gemma_values import read_gemma_object
from rockledge.serve.schema import MOST_NESTED, depth

Tools = Mapping[str, Mapping[str, Any]]
"""Functions that may be called, by name: the JSON schemas of their arguments."""


@dataclass(frozen=True)
class Call:
    """A function's name and its arguments."""

    name: str
    arguments: dict[str, Any]


def new_call_id() -> str:
    """An id for a call: nine letters and digits, the only ones that Mistral's templates take back."""
    return secrets.token_hex(5)[:9]


class UnfinishedError(ValueError):
    """What was read so far may be the beginning of a call."""


@dataclass(frozen=True)
class CallForm:
    """`seen`: texts of which a template that uses this form has one. Calls come after one of `openings`, or
    are what begins with one of `starts`, or of `leading` where nothing came before. They end with `closing`;
    without one with the answer. `read` gives the calls, or raises ValueError. `marks`: further special tokens
    inside of them.
    """

    name: str
    seen: tuple[str, ...]
    openings: tuple[str, ...]
    closing: str | None
    read: Callable[[str, Tools], list[Call]]
    starts: tuple[str, ...] = ()
    leading: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """All that may be a special token in a call."""
        closing = () if self.closing is None else (self.closing,)
        return (*self.openings, *closing, *self.marks)


def _not_json(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")


_JSON = json.JSONDecoder(parse_constant=_not_json)


def _decode(text: str, start: int = 0) -> tuple[Any, int]:
    """The JSON value that begins at `start`, and its end."""
    try:
        return _JSON.raw_decode(text, start)
    except json.JSONDecodeError as error:
        if error.msg.startswith("Unterminated string"):
            raise UnfinishedError(error.msg) from None
        raise
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _call(entry: Any, tools: Tools) -> Call:
    """The call that an object means, by the names that models give its parts."""
    if not isinstance(entry, dict):
        raise ValueError("not an object")
    if isinstance(entry.get("function"), dict):
        entry = entry["function"]
    name = entry.get("name", entry.get("function"))
    known = (entry[key] for key in ("arguments", "parameters", "args") if key in entry)
    arguments: Any = next(known, {})
    if isinstance(arguments, str):
        arguments, _ = _decode(arguments or "{}")
    if not isinstance(name, str) or name not in tools or not isinstance(arguments or {}, dict):
        raise ValueError("not a call")
    if depth(arguments) > MOST_NESTED:
        raise ValueError("nested too deeply")
    return Call(name, arguments or {})


def read_json(body: str, tools: Tools) -> list[Call]:
    """Objects or lists of objects, one after the other; between them white space, commas or semicolons."""
    body = body.strip()
    fenced = re.fullmatch(r"```(?:json)?\s*(.*?)\s*```", body, re.DOTALL)
    body = fenced[1] if fenced else body
    calls: list[Call] = []
    place = 0
    while place < len(body):
        value, place = _decode(body, place)
        calls += [_call(entry, tools) for entry in (value if isinstance(value, list) else [value])]
        while place < len(body) and body[place] in " \t\r\n,;":
            place += 1
    if not calls:
        raise ValueError("no call")
    return calls


_PARAMETER = re.compile(r"<parameter=([^>\n]+)>\n?(.*?)\n?</parameter>\s*", re.DOTALL)
_FUNCTION = re.compile(
    r"\s*<function=([^>\n]+)>\s*((?:<parameter=.*</parameter>\s*)?)</function>\s*", re.DOTALL
)


def _read_tagged(body: str, tools: Tools) -> list[Call]:
    """JSON, or, as Qwen3-Coder writes it, <function=NAME> with <parameter=NAME> for each argument."""
    if not body.lstrip().startswith("<function="):
        return read_json(body, tools)
    found = _FUNCTION.fullmatch(body)
    if found is None or found[1] not in tools:
        raise ValueError("not a call")
    properties = tools[found[1]].get("properties") or {}
    arguments, place = {}, 0
    for match in _PARAMETER.finditer(found[2]):
        if match.start() != place:
            raise ValueError("text between parameters")
        place = match.end()
        arguments[match[1]] = _typed(match[2], properties.get(match[1]))
    if place != len(found[2]):
        raise ValueError("text after parameters")
    return [Call(found[1], arguments)]


def _typed(value: str, schema: Any) -> Any:
    """A parameter's text as its schema has it: a string, or else JSON where it is that."""
    kind = schema.get("type") if isinstance(schema, dict) else None
    if kind == "string":
        return value
    try:
        found, end = _decode(value.strip())
    except ValueError:
        return value
    return found if end == len(value.strip()) else value


_NAMED = re.compile(r"\s*([^\s\[\{]+)(?:\[CALL_ID\][^\[\{]*)?(?:\[ARGS\])?\s*(?=\{)")


def _read_mistral(body: str, tools: Tools) -> list[Call]:
    """A list of objects (until version 7 of the tokenizer), or NAME[ARGS]{...} for every call."""
    calls: list[Call] = []
    for piece in body.split("[TOOL_CALLS]"):
        named = _NAMED.match(piece)
        if named is None:
            calls += read_json(piece, tools)
        else:
            arguments, end = _decode(piece, named.end())
            if piece[end:].strip():
                raise ValueError("text after a call")
            calls.append(_call({"name": named[1], "arguments": arguments}, tools))
    return calls


def _read_listed(body: str, tools: Tools) -> list[Call]:
    """A list of objects, with or without a mark at its end (Phi-4)."""
    return read_json(body.strip().removesuffix("<|/tool_call|>"), tools)


def _gemma(quote: str) -> Callable[[str, Tools], list[Call]]:
    def read(body: str, tools: Tools) -> list[Call]:
        """call:NAME{KEY:VALUE,...} with marks around strings."""
        named = re.match(r"\s*call:\s*([^\s{]+)\s*", body)
        if named is None or named[1] not in tools:
            raise ValueError("not a call")
        return [Call(named[1], read_gemma_object(body[named.end() :].strip(), quote))]

    return read


HERMES = CallForm("hermes", ("<tool_call>",), ("<tool_call>",), "</tool_call>", _read_tagged)
JSON = CallForm(
    "json",
    ("<|python_tag|>",),
    ("<|python_tag|>",),
    None,
    read_json,
    starts=('{"name"', '{"type": "function"'),
    leading=("{", "[{", "[ {", "[\n", "```json"),
    marks=("<|eom_id|>",),
)
"""Llama 3's, and of all models whose template has none of the others."""

FORMS = (
    CallForm(
        "mistral", ("[TOOL_CALLS]",), ("[TOOL_CALLS]",), None, _read_mistral, marks=("[ARGS]", "[CALL_ID]")
    ),
    CallForm(
        "granite",
        ("<|tool_call|>",),
        ("<|tool_call|>", "<tool_call>"),
        None,
        _read_listed,
        marks=("<|/tool_call|>",),
    ),
    CallForm(
        "functiongemma",
        ("<start_function_call>",),
        ("<start_function_call>",),
        "<end_function_call>",
        _gemma("<escape>"),
        marks=("<escape>",),
    ),
    CallForm(
        "gemma4", ("<|tool_call>",), ("<|tool_call>",), "<tool_call|>", _gemma('<|"|>'), marks=('<|"|>',)
    ),
    HERMES,
    JSON,
)


def form_of(sources: Iterable[str]) -> CallForm:
    """The form that templates which take tools ask for."""
    text = "\n".join(sources)
    return next((form for form in FORMS if any(mark in text for mark in form.seen)), JSON)

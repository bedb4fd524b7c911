"""What request bodies are declared with: fields that name what they expect, and the sentence of a mistake.

A field that is absent or null has its default. Nothing is silently ignored: what a schema does not have is
refused by name, unless `accepted.py` says that it has no effect.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import CoreSchema, ErrorDetails, PydanticCustomError, core_schema

from rockledge.serve.accepted import HARMLESS, HARMLESS_ELSEWHERE, NEUTRAL
from rockledge.serve.errors import ApiError, printable

MOST_NESTED = 100
"""Lists and objects within each other in what is shown to a model."""

MOST_SHOWN = 200
"""Characters of an unknown field's name that its error repeats."""


@dataclass(frozen=True)
class Reading:
    """How bodies are read. `strict`: only what OpenAI's API has, as it has it. Token ids are below
    `vocab`."""

    strict: bool = False
    vocab: int = 1 << 31


DEFAULT_READING = Reading()


def expected(what: str) -> PydanticCustomError:
    """The mistake of a field that is not `what` it must be."""
    return mistake("expected", what=what)


def mistake(kind: str, **context: str) -> PydanticCustomError:
    """A mistake of one of the kinds that `read_body` knows."""
    return PydanticCustomError("mistake", "{kind}", {"kind": kind} | _printable(context))


def _printable(context: dict[str, str]) -> dict[str, str]:
    return {name: printable(value) for name, value in context.items()}


def wrong(name: str, what: str) -> ApiError:
    """The answer to a body whose field `name` is not `what` it must be."""
    return ApiError(f"'{name}' must be {what}", param=name)


@dataclass(frozen=True)
class Field:
    """A field whose JSON value `read` turns into what the class declares, or raises `expected(...)`.

    `document`: its JSON schema in the OpenAPI document.
    """

    read: Callable[[Any, Reading], Any]
    document: Mapping[str, Any] = field(default_factory=dict)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Of pydantic: the field is read by `read` alone."""

        def read(value: Any, info: ValidationInfo) -> Any:
            return self.read(value, info.context or DEFAULT_READING)

        return core_schema.with_info_plain_validator_function(read)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Of pydantic: what the OpenAPI document says."""
        return dict(self.document)


def number(low: float, high: float = math.inf) -> Field:
    """A finite number in [low, high]."""

    def read(value: Any, reading: Reading) -> float:
        bounds = f"a number of at least {low:g}" + (f" and at most {high:g}" if high < math.inf else "")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            raise expected(bounds)
        try:
            if float(value) == math.inf:
                raise expected("a finite number")
        except OverflowError:
            raise expected("a finite number") from None
        return float(value)

    bound = {"maximum": high} if high < math.inf else {}
    return Field(read, {"type": "number", "minimum": low, **bound})


def whole(low: int, high: int, unlimited: int | None = None) -> Field:
    """A whole number in [low, high], or the value that means no limit; JSON has one kind of number, so 8.0
    is one too. Strictly neither is taken."""

    def read(value: Any, reading: Reading) -> int:
        if isinstance(value, float) and value.is_integer() and not reading.strict:
            value = int(value)
        fits = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        if not fits and (reading.strict or value != unlimited or isinstance(value, bool)):
            raise expected(f"a whole number between {low} and {high}")
        return int(value)

    least = low if unlimited is None else min(low, unlimited)
    return Field(read, {"type": "integer", "minimum": least, "maximum": high})


def flag() -> Field:
    """true or false."""

    def read(value: Any, reading: Reading) -> bool:
        if not isinstance(value, bool):
            raise expected("true or false")
        return value

    return Field(read, {"type": "boolean"})


def text() -> Field:
    """A string."""
    return Field(lambda value, reading: valid_text(value), {"type": "string"})


def valid_text(value: object) -> str:
    """`value`, if it is a string of whole characters (JSON can hold lone surrogates)."""
    if not isinstance(value, str):
        raise expected("a string")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise expected("valid Unicode text (it holds half of a surrogate pair)") from None
    return value


def one_of(*values: str) -> Field:
    """One of a few strings."""

    def read(value: Any, reading: Reading) -> str:
        if not isinstance(value, str) or value not in values:
            raise expected("one of " + ", ".join(values))
        return value

    return Field(read, {"type": "string", "enum": list(values)})


def json_object() -> Field:
    """An object of any content that is valid Unicode."""

    def read(value: Any, reading: Reading) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise expected("an object")
        return dict(check_texts(value))

    return Field(read, {"type": "object"})


def check_texts(value: Any) -> Any:
    """`value`, if all texts within it, keys too, are whole characters, and it is not nested deeper than what
    renders it can follow."""
    if depth(value) > MOST_NESTED:
        raise expected(f"nested at most {MOST_NESTED} deep")
    stack = [value]
    while stack:
        found = stack.pop()
        if isinstance(found, str):
            valid_text(found)
        elif isinstance(found, list):
            stack += found
        elif isinstance(found, dict):
            stack += [*found, *found.values()]
    return value


def depth(value: Any) -> int:
    """How deep a JSON value is nested, counted no further than one beyond `MOST_NESTED`."""
    level, found = [value], 0
    while found <= MOST_NESTED:
        level = [
            inner
            for outer in level
            if isinstance(outer, (list, dict))
            for inner in (outer if isinstance(outer, list) else outer.values())
        ]
        if not level:
            return found
        found += 1
    return found


class Schema(BaseModel):
    """One JSON object of a request."""

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())

    tolerant: ClassVar[bool] = False
    """Whether fields that are not declared are taken, except those of `refused`."""
    refused: ClassVar[Mapping[str, str]] = {}
    """Fields that would change the answer, with what to do instead."""
    harmless: ClassVar[frozenset[str]] = HARMLESS
    """Fields of the API that are not declared and change nothing."""
    neutral: ClassVar[Mapping[str, tuple[Any, ...]]] = NEUTRAL
    """Fields of the API that are not declared, with the values of them that change nothing."""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any, info: ValidationInfo) -> dict[str, Any]:
        """What is there, if all of it is known."""
        if not isinstance(value, dict):
            raise expected("a JSON object")
        given = {name: found for name, found in value.items() if found is not None}
        reading = info.context or DEFAULT_READING
        for name in given.keys() - cls.model_fields.keys():
            cls._check_unknown(name, given[name], reading)
        return {name: given[name] for name in cls.model_fields if name in given}

    @classmethod
    def _check_unknown(cls, name: str, value: Any, reading: Reading) -> None:
        if name in cls.refused and value:
            raise mistake("refused", name=name, why=cls.refused[name])
        if name in cls.refused or name in cls.harmless:
            return
        if not reading.strict and (cls.tolerant or name in HARMLESS_ELSEWHERE):
            return
        if name not in cls.neutral:
            raise mistake("unknown", name=name)
        if not any(value == neutral and type(value) is not bool for neutral in cls.neutral[name]):
            raise mistake("unsupported", name=name)


S = TypeVar("S", bound=Schema)


def read_body(schema: type[S], body: object, reading: Reading, place: str = "") -> S:
    """The body as `schema` declares it, or what stands at `place` in it.

    Raises:
        ApiError: 400 that names the first field that is wrong.
    """
    try:
        return schema.model_validate(body, context=reading)
    except ValidationError as error:
        raise _mistake(error.errors(include_url=False, include_input=False)[0], place) from None


def _mistake(found: ErrorDetails, root: str) -> ApiError:
    place, context = _name(found["loc"], root), found.get("ctx", {})
    kind = context.get("kind", found["type"])
    if kind in ("unknown", "unsupported", "refused", "needed"):
        name = f"{place}.{context['name']}".strip(".")
        if kind == "needed":
            return wrong(name, context["what"])
        if kind == "refused":
            return ApiError(f"'{name}' {context['why']}", param=name, code="unsupported_parameter")
        if kind == "unsupported":
            return ApiError(
                f"'{name}' has a value that this server does not support; leave it out",
                param=name,
                code="unsupported_parameter",
            )
        shown = name[:MOST_SHOWN]
        return ApiError(
            f"'{shown}' is not a parameter of this endpoint; leave it out",
            param=shown,
            code="unknown_parameter",
        )
    if kind == "missing":
        return ApiError(f"'{place}' is missing", param=place)
    what = {"list_type": "a list", "too_short": "a list that is not empty"}.get(kind)
    what = context.get("what", what) or found["msg"]
    if not place:
        return ApiError(f"the request body must be {what}")
    return wrong(place, what)


def _name(place: tuple[int | str, ...], name: str) -> str:
    """Where in a body, beginning with `name`: messages[0].content."""
    for step in place:
        name += f"[{step}]" if isinstance(step, int) else f".{step}" if name else step
    return name

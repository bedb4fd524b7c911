"""The body of `/v1/responses`, and the conversation that it asks to go on.

Fields and values are those of OpenAI's API (platform.openai.com/docs/api-reference/responses/create).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from rockledge.runtime.constraints.constraint import Constraint
from rockledge.runtime.sampling import Sampling
from rockledge.runtime.sampling_defaults import CONVERSATION
from rockledge.serve.constraints import schema_constraint
from rockledge.serve.conversation.body import EFFORTS, ConversationBody, ConversationRequest
from rockledge.serve.conversation.call_forms import Tools
from rockledge.serve.conversation.tools import CHOICES, functions
from rockledge.serve.errors import ApiError
from rockledge.serve.options import (
    MAX_TOKENS,
    MAX_TOP_LOGPROBS,
    STOPS,
    UNLIMITED,
    SamplingBody,
)
from rockledge.serve.responses.items import INPUT, messages_of
from rockledge.serve.schema import (
    DEFAULT_READING,
    Field,
    Reading,
    Schema,
    check_texts,
    expected,
    flag,
    json_object,
    mistake,
    one_of,
    read_body,
    text,
    whole,
    wrong,
)

LOGPROBS = "message.output_text.logprobs"
INCLUDED = (
    LOGPROBS,
    # Hidden thoughts are OpenAI's; those of this server are there for all to read.
    "reasoning.encrypted_content",
    # Of tools that this server does not have.
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "message.input_image.image_url",
    "web_search_call.action.sources",
    "web_search_call.results",
)
FORMATS = ("text", "json_object", "json_schema")
SUMMARIES = ("auto", "concise", "detailed")


def _include(value: Any, reading: Reading) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) and name in INCLUDED for name in value):
        raise expected("a list of any of " + ", ".join(INCLUDED))
    return tuple(value)


def _tool_type(value: Any, reading: Reading) -> str:
    if value != "function":
        shown = f"'{value[:60]}'" if isinstance(value, str) else "no string"
        raise mistake(
            "refused", name="", why=f"is {shown}, but this server has no tools of its own; give functions"
        )
    return "function"


def _choice(value: Any, reading: Reading) -> str | dict[str, Any]:
    if isinstance(value, str) and value in CHOICES:
        return value
    kind = value.get("type") if isinstance(value, dict) else None
    if kind == "function" and isinstance(value.get("name"), str):
        found: dict[str, Any] = check_texts({"type": kind, "name": value["name"]})
        return found
    if kind == "allowed_tools" and value.get("mode") in ("auto", "required"):
        allowed = value.get("tools")
        if (
            isinstance(allowed, list)
            and allowed
            and all(
                isinstance(tool, dict)
                and tool.get("type", "function") == "function"
                and isinstance(tool.get("name"), str)
                for tool in allowed
            )
        ):
            names = [{"type": "function", "name": tool["name"]} for tool in allowed]
            found = check_texts({"type": kind, "mode": value["mode"], "tools": names})
            return found
    raise expected(
        'none, auto, required, {"type": "function", "name": ...} or {"type": "allowed_tools", "mode": '
        '"auto" or "required", "tools": [functions]}'
    )


INCLUDE = Field(_include, {"type": "array", "items": {"type": "string", "enum": list(INCLUDED)}})
TOOL_TYPE = Field(_tool_type, {"type": "string", "enum": ["function"]})
TOOL_CHOICE = Field(_choice, {"anyOf": [{"type": "string", "enum": list(CHOICES)}, {"type": "object"}]})
TEXT = text()  # a field of the body has that name


class ResponseTool(Schema):
    """A function that may be called."""

    tolerant: ClassVar[bool] = True
    harmless: ClassVar[frozenset[str]] = frozenset(
        {"allowed_callers", "async", "defer_loading", "output_schema"}
    )

    type: Annotated[str, TOOL_TYPE]
    name: Annotated[str, text()]
    description: Annotated[str | None, text()] = None
    parameters: Annotated[dict[str, Any] | None, json_object()] = None
    strict: Annotated[bool | None, flag()] = None

    def given(self) -> dict[str, Any]:
        """What the client said of it."""
        return self.model_dump(exclude={"type"}, exclude_unset=True)


class TextConfig(Schema):
    """What the text of the answer looks like."""

    neutral: ClassVar[Mapping[str, tuple[Any, ...]]] = {"verbosity": ("medium",)}

    format: Annotated[dict[str, Any], json_object()] = {"type": "text"}  # noqa: RUF012 (read by `_constraint`)


class ReasoningConfig(Schema):
    """How long to think. No summary is made: the thoughts themselves are in the answer."""

    neutral: ClassVar[Mapping[str, tuple[Any, ...]]] = {"context": ("auto",), "mode": ("standard",)}

    effort: Annotated[str | None, one_of(*EFFORTS)] = None
    summary: Annotated[str | None, one_of(*SUMMARIES)] = None
    generate_summary: Annotated[str | None, one_of(*SUMMARIES)] = None


class ResponseStreamOptions(Schema):
    """Padding that hides the lengths of tokens is not sent over a connection that can be encrypted."""

    include_obfuscation: Annotated[bool, flag()] = False


class ResponseBody(SamplingBody):
    """The body of `/v1/responses`."""

    refused: ClassVar[dict[str, str]] = {
        "background": "is not supported: nothing is stored here; wait for the answer, or stream it",
        "context_management": "is not supported; shorten 'input' yourself",
        "conversation": "is not supported: nothing is stored here; send the earlier items in 'input'",
        "moderation": "is not supported",
        "previous_response_id": "is not supported: nothing is stored here; send the earlier items in 'input'",
        "prompt": "names a prompt that OpenAI stores; send its text in 'instructions'",
    }
    # How much of OpenAI's own tools is used, and bookkeeping.
    harmless: ClassVar[frozenset[str]] = SamplingBody.harmless | {
        "client_metadata",
        "max_tool_calls",
        "prompt_cache_options",
    }

    input: Annotated[str | list[Any], INPUT]
    instructions: Annotated[str | None, TEXT] = None
    tools: list[ResponseTool] = []  # noqa: RUF012 (pydantic copies it)
    tool_choice: Annotated[str | dict[str, Any], TOOL_CHOICE] = "auto"
    parallel_tool_calls: Annotated[bool, flag()] = True
    text: TextConfig = TextConfig()
    reasoning: ReasoningConfig = ReasoningConfig()
    max_output_tokens: Annotated[int | None, whole(1, MAX_TOKENS, UNLIMITED)] = None
    include: Annotated[tuple[str, ...], INCLUDE] = ()
    top_logprobs: Annotated[int, whole(0, MAX_TOP_LOGPROBS)] = 0
    truncation: Annotated[str, one_of("auto", "disabled")] = "disabled"
    metadata: Annotated[dict[str, Any], json_object()] = {}  # noqa: RUF012
    stream_options: ResponseStreamOptions | None = None
    stop: Annotated[tuple[str, ...], STOPS] = ()


@dataclass(frozen=True)
class ResponseRequest:
    """A valid request: its `body`, and the conversation that it means."""

    body: ResponseBody
    conversation: ConversationRequest


def read_response_request(
    body: object, defaults: Sampling = CONVERSATION, reading: Reading = DEFAULT_READING
) -> ResponseRequest:
    """Checks every field of the body; `defaults` is the sampling of one that names none.

    Raises:
        ApiError: 400 that names the field.
    """
    found = read_body(ResponseBody, body, reading)
    if found.stream_options is not None and not found.stream:
        raise wrong("stream_options", "left out unless 'stream' is true")
    if found.top_logprobs and LOGPROBS not in found.include:
        raise wrong("top_logprobs", f"left out unless 'include' has {LOGPROBS}")
    asked = ConversationBody.model_validate(
        {
            "messages": messages_of(found.instructions, found.input, reading),
            "tools": [{"type": "function", "function": tool.given()} for tool in found.tools],
            "tool_choice": _plain_choice(found.tool_choice),
            "reasoning_effort": found.reasoning.effort,
        },
        context=reading,
    )
    constraint = _constraint(found.text.format)
    must_call = asked.tool_choice not in (None, "auto", "none")
    conversation = ConversationRequest(
        body=asked,
        options=found.one_answer(
            defaults, found.max_output_tokens, found.stop, constraint, must_call=must_call
        ),
        functions=_allowed(functions(asked.tools, asked.tool_choice, inner=""), found.tool_choice),
        one_call=not found.parallel_tool_calls,
        logprobs=found.top_logprobs if LOGPROBS in found.include else None,
        param="input",
        truncated=found.truncation == "auto",
    )
    return ResponseRequest(found, conversation)


def _plain_choice(choice: str | dict[str, Any]) -> str | dict[str, Any]:
    """What chat completions would call it; which tools are allowed is `_allowed`'s."""
    if isinstance(choice, str):
        return choice
    mode: str | None = choice.get("mode")
    return {"name": choice["name"]} if mode is None else mode


def _allowed(tools: Tools, choice: str | dict[str, Any]) -> Tools:
    """The tools that may be called; the model is told of all of them, so that prompts begin alike."""
    if isinstance(choice, str) or "tools" not in choice:
        return tools
    names = [tool["name"] for tool in choice["tools"]]
    missing = next((name for name in names if name not in tools), None)
    if missing is not None:
        raise ApiError(
            f"'tool_choice' names the function '{missing[:128]}', which 'tools' does not have",
            param="tool_choice",
        )
    return {name: tools[name] for name in names}


def _constraint(form: dict[str, Any]) -> Constraint | None:
    kind = form.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return Constraint("json")
    if kind == "json_schema":
        return schema_constraint("text.format.schema", form.get("schema"))
    raise wrong("text.format.type", ", ".join(FORMATS[:-1]) + f" or {FORMATS[-1]}")

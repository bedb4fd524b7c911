"""The bodies of `/v1/messages` and `/v1/messages/count_tokens`, and the conversation that they ask to go on.

Fields and values are those of Anthropic's API (docs.claude.com/en/api/messages).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import pydantic

from rockledge.runtime.constraints.constraint import Constraint
from rockledge.runtime.sampling import Sampling
from rockledge.runtime.sampling_defaults import CONVERSATION
from rockledge.serve.anthropic.turns import CONTENT, messages_of
from rockledge.serve.constraints import schema_constraint
from rockledge.serve.conversation.body import ConversationBody, ConversationRequest
from rockledge.serve.conversation.call_forms import Tools
from rockledge.serve.conversation.tools import functions
from rockledge.serve.options import MAX_TOKENS, STOPS, UNLIMITED, SamplingBody
from rockledge.serve.schema import (
    DEFAULT_READING,
    Field,
    Reading,
    Schema,
    flag,
    json_object,
    mistake,
    one_of,
    read_body,
    text,
    whole,
    wrong,
)

CHOICES = {"auto": "auto", "any": "required", "none": "none"}
"""What chat completions call the choices of tools."""

FORCED = ("any", "tool")
"""Choices by which a tool has to be called."""

EFFORTS = {"low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "xhigh"}
"""What chat completions call the efforts."""

USUAL_EFFORT = "medium"
"""Of thinking that is asked for without an effort. How many tokens it takes is the model's: budgets are
targets in Anthropic's API too."""


def _tool_type(value: Any, reading: Reading) -> str:
    if value != "custom":
        shown = f"'{value[:60]}'" if isinstance(value, str) else "no string"
        why = f"is {shown}, but this server has no tools of its own; give tools with an 'input_schema'"
        raise mistake("refused", name="", why=why)
    return "custom"


def _edits(value: Any, reading: Reading) -> None:
    edits = value.get("edits") if isinstance(value, dict) else value
    for edit in edits if isinstance(edits, list) else [edits] if edits else []:
        kind = edit.get("type") if isinstance(edit, dict) else None
        # Earlier thoughts are the chat template's to leave out.
        if not isinstance(kind, str) or not kind.startswith("clear_thinking"):
            raise mistake("refused", name="", why="is not supported; shorten 'messages' yourself")


EDITS = Field(_edits, {"type": "object"})
TOOL_TYPE = Field(_tool_type, {"type": "string", "enum": ["custom"]})
TURNS = Annotated[list[Any], pydantic.Field(min_length=1)]


class AnthropicTool(Schema):
    """A function that may be called."""

    tolerant: ClassVar[bool] = True
    harmless: ClassVar[frozenset[str]] = frozenset(
        {
            "allowed_callers",
            "cache_control",
            "defer_loading",
            "eager_input_streaming",
            "input_examples",
            "strict",
        }
    )

    type: Annotated[str, TOOL_TYPE] = "custom"
    name: Annotated[str, text()]
    description: Annotated[str | None, text()] = None
    input_schema: Annotated[dict[str, Any], json_object()]

    def function(self) -> dict[str, Any]:
        """The same as chat completions have it."""
        told = {} if self.description is None else {"description": self.description}
        return {"name": self.name, **told, "parameters": self.input_schema}


class ToolChoice(Schema):
    """Whether a tool has to be called, and how many may."""

    type: Annotated[str, one_of(*CHOICES, "tool")]
    name: Annotated[str | None, text()] = None
    disable_parallel_tool_use: Annotated[bool, flag()] = False


class Thinking(Schema):
    """Whether to think before the answer, and whether to show that."""

    type: Annotated[str, one_of("enabled", "disabled", "adaptive")]
    budget_tokens: Annotated[int | None, whole(1, MAX_TOKENS)] = None
    display: Annotated[str, one_of("summarized", "omitted")] = "summarized"


class OutputConfig(Schema):
    """How much effort goes into the answer, and its form."""

    effort: Annotated[str | None, one_of(*EFFORTS)] = None
    format: Annotated[dict[str, Any] | None, json_object()] = None


class AnthropicPromptBody(Schema):
    """What makes the prompt: the body of `/v1/messages/count_tokens`."""

    refused: ClassVar[dict[str, str]] = {
        "compaction": "is not supported; shorten 'messages' yourself",
        "container": "is not supported: this server has no tools of its own",
        "mcp_servers": "is not supported: this server has no tools of its own",
        "thread": "is not supported: nothing is stored here; send all of 'messages'",
    }
    # Bookkeeping, routing and hints of Anthropic's hosted service.
    harmless: ClassVar[frozenset[str]] = frozenset(
        {
            "billing_policy",
            "cache_control",
            "diagnostics",
            "fallback_credit_token",
            "fallbacks",
            "inference_geo",
            "metadata",
            "service_tier",
            "user_profile_id",
            "workspace_id",
        }
    )
    neutral: ClassVar[Mapping[str, tuple[Any, ...]]] = {"speed": ("standard",)}

    model: Annotated[str | None, text()] = None
    messages: TURNS
    system: Annotated[str | None, CONTENT] = None
    tools: list[AnthropicTool] = []  # noqa: RUF012 (pydantic copies it)
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    context_management: Annotated[Any, EDITS] = None
    output_config: OutputConfig = OutputConfig()
    output_format: Annotated[dict[str, Any] | None, json_object()] = None

    @property
    def effort(self) -> str | None:
        """How long to think, by the names of chat completions; None where that is the model's to say."""
        if self.thinking is not None and self.thinking.type == "disabled":
            return "none"
        if self.output_config.effort is not None:
            return EFFORTS[self.output_config.effort]
        return USUAL_EFFORT if self.thinking is not None and self.thinking.type == "enabled" else None


class AnthropicBody(AnthropicPromptBody, SamplingBody):
    """The body of `/v1/messages`."""

    max_tokens: Annotated[int, whole(1, MAX_TOKENS, UNLIMITED)]
    stop_sequences: Annotated[tuple[str, ...], STOPS] = ()


@dataclass(frozen=True)
class MessagesRequest:
    """A valid request: the conversation that it means; `thoughts` are shown, or only that there were some."""

    conversation: ConversationRequest
    thoughts: bool


def read_messages_request(
    body: object, defaults: Sampling = CONVERSATION, reading: Reading = DEFAULT_READING
) -> MessagesRequest:
    """Checks every field of the body; `defaults` is the sampling of one that names none.

    Raises:
        ApiError: 400 that names the field.
    """
    found = read_body(AnthropicBody, body, reading)
    _check_thinking(found)
    asked, tools = read_prompt(found, reading)
    must_call = found.tool_choice is not None and found.tool_choice.type in FORCED
    conversation = ConversationRequest(
        body=asked,
        options=found.one_answer(
            defaults, found.max_tokens, found.stop_sequences, _constraint(found), must_call=must_call
        ),
        functions=tools,
        one_call=found.tool_choice is not None and found.tool_choice.disable_parallel_tool_use,
    )
    return MessagesRequest(conversation, found.thinking is None or found.thinking.display == "summarized")


def read_prompt(found: AnthropicPromptBody, reading: Reading) -> tuple[ConversationBody, Tools]:
    """What makes the prompt, and the functions that may be called.

    Raises:
        ApiError: 400 that names the field.
    """
    messages = messages_of(found.system, found.messages, reading)
    asked = ConversationBody.model_validate(
        {
            "messages": messages,
            "tools": [{"type": "function", "function": tool.function()} for tool in found.tools],
            "tool_choice": _plain_choice(found.tool_choice),
            "reasoning_effort": found.effort,
            "continue_final_message": messages[-1]["role"] == "assistant",
        },
        context=reading,
    )
    return asked, functions(asked.tools, asked.tool_choice, inner="", parameters="input_schema")


def _plain_choice(choice: ToolChoice | None) -> str | dict[str, Any] | None:
    if choice is None:
        return None
    if (choice.type == "tool") != (choice.name is not None):
        raise wrong("tool_choice.name", "the name of a tool where 'tool_choice.type' is tool, else left out")
    return CHOICES[choice.type] if choice.name is None else {"name": choice.name}


def _check_thinking(found: AnthropicBody) -> None:
    thinking = found.thinking
    if thinking is None:
        return
    budget = thinking.budget_tokens
    if budget is not None and thinking.type != "enabled":
        raise wrong("thinking.budget_tokens", "left out unless 'thinking.type' is enabled")
    if budget is not None and 0 <= found.max_tokens <= budget:
        raise wrong("thinking.budget_tokens", f"less than the {found.max_tokens} of 'max_tokens'")
    forced = found.tool_choice is not None and found.tool_choice.type in FORCED
    if thinking.type == "enabled" and forced:
        raise wrong(
            "thinking.type", "disabled or adaptive where 'tool_choice' asks for a call, which comes at once"
        )


def _constraint(found: AnthropicPromptBody) -> Constraint | None:
    """What the text of the answer looks like; `output_format` is the older name."""
    name, form = "output_config.format", found.output_config.format
    if found.output_format is not None:
        if form is not None:
            raise wrong("output_format", "left out beside 'output_config.format'")
        name, form = "output_format", found.output_format
    if form is None:
        return None
    if form.get("type") != "json_schema":
        raise wrong(f"{name}.type", "json_schema")
    return schema_constraint(f"{name}.schema", form.get("schema"))

"""`/v1/chat/completions`: messages in, one message out."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, replace
from typing import Annotated, Any

import pydantic

from rockledge.errors import UsageError
from rockledge.runtime.constraint import Constraint, check_constraint
from rockledge.runtime.sampling import Sampling
from rockledge.runtime.sampling_defaults import CONVERSATION
from rockledge.serve.conversation.answer_reader import AnswerReader, AnswerShape, Fragment
from rockledge.serve.conversation.call_forms import JSON, Call, Tools
from rockledge.serve.conversation.dialect import effort_switches
from rockledge.serve.conversation.messages import Message, Tool
from rockledge.serve.conversation.prompt import Conversation, render, template_messages, template_tools
from rockledge.serve.conversation.tools import TOOL_CHOICE, calls_schema, functions
from rockledge.serve.conversation.truncation import Fitted, fit, prompt_room
from rockledge.serve.conversation.untrusted import encode_untrusted, suspicious
from rockledge.serve.delivery import reply_head
from rockledge.serve.errors import ApiError, context_length_exceeded
from rockledge.serve.generation import Generation
from rockledge.serve.limits import Limits, answer_tokens
from rockledge.serve.openai.logprobs import chat_logprobs
from rockledge.serve.options import MAX_TOP_LOGPROBS, GenerationBody, Options
from rockledge.serve.parts import Part, Usage, join_choice
from rockledge.serve.schema import (
    DEFAULT_READING,
    Field,
    Reading,
    Schema,
    check_texts,
    expected,
    flag,
    json_object,
    one_of,
    read_body,
    whole,
    wrong,
)
from rockledge.serve.served_model import ServedModel


def _documents(value: Any, reading: Reading) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise expected("a list of objects, such as with 'title' and 'text'")
    checked: list[dict[str, Any]] = check_texts(value)
    return checked


DOCUMENTS = Field(_documents, {"type": "array", "items": {"type": "object"}})
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh")


class ConversationBody(Schema):
    """What makes the prompt of a conversation."""

    messages: Annotated[list[Message], pydantic.Field(min_length=1)]
    tools: list[Tool] = []  # noqa: RUF012 (pydantic copies it)
    tool_choice: Annotated[str | dict[str, Any] | None, TOOL_CHOICE] = None
    chat_template_kwargs: Annotated[dict[str, Any], json_object()] = {}  # noqa: RUF012
    reasoning_effort: Annotated[str | None, one_of(*EFFORTS)] = None
    documents: Annotated[list[dict[str, Any]], DOCUMENTS] = []  # noqa: RUF012
    continue_final_message: Annotated[bool, flag()] = False
    add_generation_prompt: Annotated[bool | None, flag()] = None

    @property
    def continued(self) -> bool:
        """Whether the last message is the beginning of the answer."""
        return self.continue_final_message or self.messages[-1].prefix

    def check(self) -> None:
        """Raises ApiError for fields that contradict each other."""
        early = next((i for i, message in enumerate(self.messages[:-1]) if message.prefix), None)
        if early is not None:
            raise wrong(f"messages[{early}].prefix", "left out, except in the last message")
        if not self.continued:
            return
        last = self.messages[-1]
        if last.role != "assistant" or last.tool_calls or last.content is None:
            raise wrong(f"messages[{len(self.messages) - 1}]", "text of the assistant, to be continued")
        if self.add_generation_prompt:
            raise wrong("add_generation_prompt", "left out where the last message is continued")


class ChatBody(ConversationBody, GenerationBody):
    """The body of `/v1/chat/completions`."""

    logprobs: Annotated[bool, flag()] = False
    top_logprobs: Annotated[int, whole(0, MAX_TOP_LOGPROBS)] = 0
    parallel_tool_calls: Annotated[bool, flag()] = True
    truncation: Annotated[str, one_of("auto", "disabled")] = "disabled"


@dataclass(frozen=True)
class ChatRequest:
    """A valid request. `logprobs` is the number of alternatives per token, None when not requested;
    `functions` are those that may be called."""

    body: ChatBody
    logprobs: int | None
    options: Options
    functions: Tools


def read_chat_request(
    body: object, defaults: Sampling = CONVERSATION, reading: Reading = DEFAULT_READING
) -> ChatRequest:
    """Checks every field of the body; `defaults` is the sampling of one that names none.

    Raises:
        ApiError: 400 that names the field.
    """
    found = read_body(ChatBody, body, reading)
    if found.top_logprobs and not found.logprobs:
        raise wrong("top_logprobs", "left out unless 'logprobs' is true")
    found.check()
    options = found.options(defaults)
    if options.max_tokens == 0:
        raise wrong("max_tokens", "at least 1")
    return ChatRequest(
        body=found,
        logprobs=found.top_logprobs if found.logprobs else None,
        options=options,
        functions=functions(found.tools, found.tool_choice),
    )


def chat_prompt(model: ServedModel, body: ConversationBody) -> tuple[str, list[int]]:
    """The rendered conversation, and its token ids.

    Raises:
        ApiError: no chat template, the template refuses the messages, or they cannot fit in the context.
    """
    if model.chat is None or model.dialect is None:
        raise ApiError("this model has no chat template; use /v1/completions", code="no_chat_template")
    if body.documents and not model.chat.takes_documents:
        raise wrong("documents", "left out: the model's chat template does not read them")
    conversation = Conversation(
        messages=template_messages(body.messages, model.dialect, body.continued),
        tools=None if body.tool_choice == "none" else template_tools(body.tools) or None,
        switches={**effort_switches(model.dialect, body.reasoning_effort), **body.chat_template_kwargs},
        documents=body.documents or None,
        answer=body.add_generation_prompt is not False,
        continued=body.continued,
    )
    chat, dialect = model.chat, model.dialect
    try:
        text = render(chat, dialect, conversation)
        model.require_short(text, "messages")
        if model.markup is not None and suspicious(model.markup, conversation):
            marks = () if dialect.thoughts is None else (dialect.thoughts.opening, dialect.thoughts.closing)
            text, ids = encode_untrusted(
                model.markup, conversation, lambda changed: render(chat, dialect, changed), marks
            )
        else:
            ids = model.tokenizer.encode(text, bos=False)
    except UsageError as error:
        raise ApiError(str(error), param="messages") from None
    if not ids:
        raise ApiError("the chat template makes an empty prompt of these messages", param="messages")
    return text, ids


def chat_generation(
    model: ServedModel, request: ChatRequest, limits: Limits
) -> tuple[Generation, AnswerShape]:
    """What the engine is to do for the rendered conversation, and what its answer may hold.

    Raises:
        ApiError: as `chat_prompt`, or the messages leave no room for an answer.
    """
    body = request.body
    prompt = _prompt(model, request, limits)
    text, ids = prompt.text, prompt.ids
    if len(ids) >= model.context:
        raise context_length_exceeded(len(ids), model.context, "messages")
    options, must_call = request.options, calls_constraint(request)
    if must_call is not None:
        options = replace(options, constraint=must_call)
    dialect = model.dialect
    assert dialect is not None
    thoughts = dialect.thoughts
    begun = body.messages[-1].content if body.continued else None
    thinking = thoughts is not None and (thoughts.opened_in(begun) if begun else thoughts.opened_by(text))
    shape = AnswerShape(
        # Calls that have to be made come as plain JSON, whatever the model's own form, and at once.
        thoughts=None if must_call or (begun and not thinking) else thoughts,
        thinking=thinking and must_call is None,
        form=(JSON if must_call else dialect.calls) if request.functions else None,
        tools=request.functions,
        one_call=not body.parallel_tool_calls,
    )
    most = answer_tokens(options.max_tokens, model.context - len(ids), limits)
    shown = (*dialect.shown_thoughts, *(dialect.shown_calls if request.functions else ()))
    work = Generation((tuple(ids),), (most,), options, request.logprobs, shown=shown, dropped=prompt.dropped)
    return work, shape


def _prompt(model: ServedModel, request: ChatRequest, limits: Limits) -> Fitted:
    """The prompt, of the messages that there is room for if the request says so."""
    body, wanted = request.body, request.options.max_tokens
    if body.truncation == "disabled":
        return Fitted(*chat_prompt(model, body), dropped=0)
    longest = limits.answer_tokens if wanted is None or wanted < 0 else answer_tokens(wanted, wanted, limits)
    room = prompt_room(model.context, longest)

    def measure(text: str) -> int:
        least = model.tokenizer.least_tokens(text)
        return least if least > room else len(model.tokenizer.encode(text, bos=False))

    return fit(
        body.messages,
        lambda kept: chat_prompt(model, body.model_copy(update={"messages": kept})),
        measure,
        room,
        besides="".join(json.dumps(tool.given) for tool in body.tools),
    )


def calls_constraint(request: ChatRequest) -> Constraint | None:
    """What an answer must look like that has to call a function; None where it need not.

    Raises:
        ApiError: the schema of a tool cannot be kept to, or another field says what the answer looks like.
    """
    body = request.body
    schema = calls_schema(request.functions, body.tool_choice, not body.parallel_tool_calls)
    if schema is None:
        return None
    if request.options.constraint is not None:
        raise ApiError(
            "'tool_choice' asks for a call and another field for a form of the answer; give one of them",
            param="tool_choice",
        )
    constraint = Constraint("json_schema", json.dumps(schema))
    try:
        check_constraint(constraint)
    except UsageError as error:
        raise ApiError(f"the parameters of a tool cannot be kept to: {error}", param="tools") from None
    return constraint


class ChatReply:
    """Objects `chat.completion` and `chat.completion.chunk`."""

    def __init__(self, model: ServedModel, request: ChatRequest, shape: AnswerShape) -> None:
        kind = "chat.completion.chunk" if request.options.stream else "chat.completion"
        self._include_usage = request.options.include_usage
        self._head = reply_head("chatcmpl", kind, request.options.model or model.name)
        self._tokenizer = model.tokenizer
        self._logprobs = request.logprobs is not None
        self._choices = request.options.n
        self._readers = [AnswerReader(shape) for _ in range(self._choices)]

    def opening(self) -> list[dict[str, Any]]:
        """The chunks that name the speaker."""
        opened = {"role": "assistant", "content": ""}
        return [self._chunk(choice, opened, None, None) for choice in range(self._choices)]

    def chunks(self, part: Part) -> list[dict[str, Any]]:
        """A piece of a message: a chunk for each kind of thing in it, none while it is not certain what it
        is."""
        calls = self._readers[part.choice].calls
        deltas: list[dict[str, Any]] = []
        for fragment in self._fragments(part):
            deltas += _deltas(fragment, calls)
            calls += len(fragment.calls)
        if not deltas and (part.finish or part.tokens):
            deltas = [{}]
        last = len(deltas) - 1
        return [
            self._chunk(
                part.choice,
                delta,
                self._scored(part) if number == 0 else None,
                self._finish(part) if number == last else None,
            )
            for number, delta in enumerate(deltas)
        ]

    def closing(self, usage: Usage) -> list[dict[str, Any]]:
        """The last chunk, when usage was requested."""
        return [{**self._head, "choices": [], "usage": usage.body()}] if self._include_usage else []

    def whole(self, parts: list[Part], usage: Usage) -> dict[str, Any]:
        """The messages in one object."""
        choices = [self._choice(join_choice(parts, choice)) for choice in range(self._choices)]
        return {**self._head, "choices": choices, "usage": usage.body()}

    def _choice(self, part: Part) -> dict[str, Any]:
        fragments = self._fragments(part)
        text = "".join(fragment.text for fragment in fragments)
        thoughts = "".join(fragment.thoughts for fragment in fragments)
        calls = [_tool_call(call) for fragment in fragments for call in fragment.calls]
        message: dict[str, Any] = {
            "role": "assistant",
            "content": text or (None if calls else ""),
            "refusal": None,
        }
        message |= {"reasoning_content": thoughts} if thoughts else {}
        message |= {"tool_calls": calls} if calls else {}
        return {
            "index": part.choice,
            "message": message,
            "logprobs": self._scored(part),
            "finish_reason": self._finish(part),
        }

    def _fragments(self, part: Part) -> list[Fragment]:
        reader = self._readers[part.choice]
        return [*reader.push(part.text), *(reader.flush() if part.finish else ())]

    def _finish(self, part: Part) -> str | None:
        called = part.finish == "stop" and self._readers[part.choice].calls
        return "tool_calls" if called else part.finish

    def _scored(self, part: Part) -> dict[str, Any] | None:
        return chat_logprobs(self._tokenizer, part.tokens) if self._logprobs else None

    def _chunk(
        self, choice: int, delta: dict[str, Any], logprobs: dict[str, Any] | None, finish: str | None
    ) -> dict[str, Any]:
        part = {"index": choice, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return {**self._head, "choices": [part]}


def _deltas(fragment: Fragment, calls: int) -> list[dict[str, Any]]:
    """What is new, in OpenAI's order; of a call first its name, then its arguments. `calls` came before."""
    deltas: list[dict[str, Any]] = []
    if fragment.thoughts:
        deltas.append({"reasoning_content": fragment.thoughts})
    if fragment.text:
        deltas.append({"content": fragment.text})
    for index, call in enumerate(fragment.calls, calls):
        whole = _tool_call(call)
        arguments = whole["function"]["arguments"]
        named = {**whole, "function": {**whole["function"], "arguments": ""}}
        deltas.append({"tool_calls": [{"index": index, **named}]})
        deltas.append({"tool_calls": [{"index": index, "function": {"arguments": arguments}}]})
    return deltas


def _tool_call(call: Call) -> dict[str, Any]:
    # Nine letters and digits: the only ids that Mistral's templates take back.
    arguments = json.dumps(call.arguments, ensure_ascii=False)
    function = {"name": call.name, "arguments": arguments}
    return {"id": secrets.token_hex(5)[:9], "type": "function", "function": function}

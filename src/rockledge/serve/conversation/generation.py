"""What the engine is to do for a conversation: its prompt, its constraint, and what its answer may hold."""

from __future__ import annotations

import json
from dataclasses import replace

from rockledge.errors import UsageError
from rockledge.runtime.constraints.constraint import Constraint, check_constraint
from rockledge.serve.conversation.answer_reader import AnswerShape
from rockledge.serve.conversation.body import ConversationBody, ConversationRequest
from rockledge.serve.conversation.call_forms import JSON
from rockledge.serve.conversation.dialect import effort_switches
from rockledge.serve.conversation.prompt import Conversation, render, template_messages, template_tools
from rockledge.serve.conversation.tools import calls_schema
from rockledge.serve.conversation.truncation import Fitted, fit, prompt_room
from rockledge.serve.conversation.untrusted import encode_untrusted, suspicious
from rockledge.serve.errors import ApiError, context_length_exceeded
from rockledge.serve.generation import Generation
from rockledge.serve.limits import Limits, answer_tokens
from rockledge.serve.schema import wrong
from rockledge.serve.served_model import ServedModel


def chat_prompt(model: ServedModel, body: ConversationBody, param: str = "messages") -> tuple[str, list[int]]:
    """The rendered conversation, and its token ids. `param` is what the request calls its messages.

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
        model.require_short(text, param)
        if model.markup is not None and suspicious(model.markup, conversation):
            marks = () if dialect.thoughts is None else (dialect.thoughts.opening, dialect.thoughts.closing)
            text, ids = encode_untrusted(
                model.markup, conversation, lambda changed: render(chat, dialect, changed), marks
            )
        else:
            ids = model.tokenizer.encode(text, bos=False)
    except UsageError as error:
        raise ApiError(str(error), param=param) from None
    if not ids:
        raise ApiError("the chat template makes an empty prompt of these messages", param=param)
    return text, ids


def chat_generation(
    model: ServedModel, request: ConversationRequest, limits: Limits
) -> tuple[Generation, AnswerShape]:
    """What the engine is to do for the rendered conversation, and what its answer may hold.

    Raises:
        ApiError: as `chat_prompt`, or the messages leave no room for an answer.
    """
    body = request.body
    prompt = _prompt(model, request, limits)
    text, ids = prompt.text, prompt.ids
    if len(ids) >= model.context:
        raise context_length_exceeded(len(ids), model.context, request.param)
    options, must_call = request.options, calls_constraint(request)
    if must_call is not None:
        options = replace(options, constraint=must_call)
    dialect = model.dialect
    assert dialect is not None
    thoughts = dialect.thoughts
    begun = body.messages[-1].content if body.continued else None
    thinking = thoughts is not None and (thoughts.opened_in(begun) if begun else thoughts.opened_by(text))
    if options.constraint is not None and thinking:
        # The answer begins with what it must look like, whatever the prompt has opened.
        thoughts, thinking = None, False
    shape = AnswerShape(
        # Calls that have to be made come as plain JSON, whatever the model's own form, and at once.
        thoughts=None if must_call or (begun and not thinking) else thoughts,
        thinking=thinking and must_call is None,
        form=(JSON if must_call else dialect.calls) if request.functions else None,
        tools=request.functions,
        one_call=request.one_call,
    )
    most = answer_tokens(options.max_tokens, model.context - len(ids), limits)
    shown = (*dialect.shown_thoughts, *(dialect.shown_calls if request.functions else ()))
    work = Generation((tuple(ids),), (most,), options, request.logprobs, shown=shown, dropped=prompt.dropped)
    return work, shape


def _prompt(model: ServedModel, request: ConversationRequest, limits: Limits) -> Fitted:
    """The prompt, of the messages that there is room for if the request says so."""
    body, wanted = request.body, request.options.max_tokens
    if not request.truncated:
        return Fitted(*chat_prompt(model, body, request.param), dropped=0)
    longest = limits.answer_tokens if wanted is None or wanted < 0 else answer_tokens(wanted, wanted, limits)
    room = prompt_room(model.context, longest)

    def measure(text: str) -> int:
        least = model.tokenizer.least_tokens(text)
        return least if least > room else len(model.tokenizer.encode(text, bos=False))

    return fit(
        body.messages,
        lambda kept: chat_prompt(model, body.model_copy(update={"messages": kept}), request.param),
        measure,
        room,
        besides="".join(json.dumps(tool.given) for tool in body.tools),
    )


def calls_constraint(request: ConversationRequest) -> Constraint | None:
    """What an answer must look like that has to call a function; None where it need not.

    Raises:
        ApiError: the schema of a tool cannot be kept to, or another field says what the answer looks like.
    """
    schema = calls_schema(request.functions, request.body.tool_choice, request.one_call)
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

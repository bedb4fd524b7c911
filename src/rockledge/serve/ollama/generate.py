"""`/api/generate`: a prompt as the only message of a conversation, or continued as it is (`raw`)."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from rockledge.serve.api import Work
from rockledge.serve.conversation.answer_reader import AnswerShape
from rockledge.serve.conversation.body import ConversationBody, ConversationRequest
from rockledge.serve.conversation.generation import chat_generation
from rockledge.serve.conversation.messages import Message
from rockledge.serve.errors import context_length_exceeded
from rockledge.serve.generation import Generation
from rockledge.serve.limits import Limits, answer_tokens
from rockledge.serve.ollama.bodies import GeneratingBody
from rockledge.serve.ollama.earlier_turns import after_earlier_turns
from rockledge.serve.ollama.reply import Loading, OllamaReply, Timing, as_response, loading
from rockledge.serve.openai.completions import CompletionRequest, completion_generation
from rockledge.serve.options import UNLIMITED, Options, is_id
from rockledge.serve.schema import Field, Reading, expected, flag, read_body, text, wrong
from rockledge.serve.served_model import ServedModel


def _context(value: Any, reading: Reading) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(is_id(item, reading.vocab) for item in value):
        raise expected("the 'context' of an earlier answer of this model")
    return tuple(value)


CONTEXT = Field(_context, {"type": "array", "items": {"type": "integer", "minimum": 0}})


class GenerateBody(GeneratingBody):
    """The body of `/api/generate`. Without a prompt it asks for the model to be loaded."""

    prompt: Annotated[str, text()] = ""
    suffix: Annotated[str, text()] = ""
    system: Annotated[str, text()] = ""
    raw: Annotated[bool, flag()] = False
    context: Annotated[tuple[int, ...], CONTEXT] = ()


def generate_work(
    model: ServedModel, body: object, reading: Reading, limits: Limits, timing: Timing
) -> Work | Loading:
    """What a body asks for.

    Raises:
        ApiError: 400 that names the field.
    """
    found = read_body(GenerateBody, body, reading)
    if not found.prompt and not found.suffix:
        return loading(model, found.asked, as_response, found.keep_alive)
    model.require_generates()
    found.options.check(model.context)
    if found.suffix:
        generation, shape = _filled(model, found, limits), AnswerShape()
    elif found.raw or model.chat is None:
        generation, shape = _continued(model, found, limits), AnswerShape()
    else:
        generation, shape = _answered(model, found, limits)
    [prompt] = generation.prompts
    timing.read()
    return Work(
        model,
        generation,
        lambda: OllamaReply(
            model,
            found.asked,
            as_response,
            shape,
            timing,
            logprobs=found.logprobs,
            context=None if found.raw or found.suffix else prompt,
        ),
        found.keep_alive,
    )


def _continued(model: ServedModel, found: GenerateBody, limits: Limits) -> Generation:
    """The prompt as it is, after what texts of the model begin with."""
    for name in ("system", "context", "think") if found.raw else ("system", "think"):
        if getattr(found, name):
            why = "with 'raw'" if found.raw else "for a model without a chat template"
            raise wrong(name, f"left out {why}")
    ids = list(model.encode(found.prompt, "prompt", bos=not found.context))
    if model.bos is not None and ids[:2] == [model.bos, model.bos]:
        del ids[0]  # the client's own and ours
    options = _options(model, found)
    request = CompletionRequest(
        prompts=((*found.context, *ids),),
        max_tokens=options.max_tokens or UNLIMITED,
        echo=False,
        logprobs=found.alternatives,
        options=options,
    )
    return completion_generation(model, request, limits)


def _filled(model: ServedModel, found: GenerateBody, limits: Limits) -> Generation:
    """What stands between the prompt and the suffix."""
    for name in ("system", "context", "think"):
        if getattr(found, name):
            raise wrong(name, "left out with 'suffix'")
    options = _options(model, found)
    request = CompletionRequest(
        prompts=(found.prompt,),
        max_tokens=options.max_tokens or UNLIMITED,
        echo=False,
        logprobs=found.alternatives,
        options=options,
        suffix=found.suffix,
    )
    return completion_generation(model, request, limits)


def _answered(model: ServedModel, found: GenerateBody, limits: Limits) -> tuple[Generation, AnswerShape]:
    """The prompt as the message of a user, after a system text and earlier turns."""
    texts = [("system", found.system), ("user", found.prompt)]
    messages = [Message.model_construct(role=role, content=said) for role, said in texts if said]
    request = ConversationRequest(
        body=ConversationBody.model_construct(messages=messages, **found.thinking(model)),
        options=_options(model, found),
        functions={},
        logprobs=found.alternatives,
        param="prompt",
    )
    generation, shape = chat_generation(model, request, limits)
    if not found.context:
        return generation, shape
    ids = after_earlier_turns(model, found.context, request.body)
    if len(ids) >= model.context:
        raise context_length_exceeded(len(ids), model.context, "prompt")
    most = answer_tokens(request.options.max_tokens, model.context - len(ids), limits)
    return replace(generation, prompts=(ids,), max_tokens=(most,)), shape


def _options(model: ServedModel, found: GenerateBody) -> Options:
    return found.options.generation(
        found.asked, model.sampling, stream=found.stream, constraint=found.constraint()
    )

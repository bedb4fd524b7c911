"""`context` of `/api/generate`: token ids of earlier turns, as an earlier answer gave them back.

They are the ids of that answer's prompt and of the answer, without what ends a turn. The next prompt has to
end it, so it is rendered as the second turn of a conversation, and what stands before it is cut away.
"""

from __future__ import annotations

from rockledge.serve.conversation.body import ConversationBody
from rockledge.serve.conversation.generation import chat_prompt
from rockledge.serve.conversation.messages import Message
from rockledge.serve.errors import ApiError
from rockledge.serve.schema import wrong
from rockledge.serve.served_model import ServedModel

_STANDING_IN = (
    Message.model_validate({"role": "user", "content": "Q"}),
    Message.model_validate({"role": "assistant", "content": "A"}),
)


def after_earlier_turns(
    model: ServedModel, context: tuple[int, ...], body: ConversationBody
) -> tuple[int, ...]:
    """The ids of the whole prompt: `context`, the end of its last turn, and the message of `body`.

    Raises:
        ApiError: another system text than that of the context; and as `chat_prompt`.
    """
    system = [message for message in body.messages if message.role == "system"]
    for message in system:
        if (message.content or "").strip() not in model.tokenizer.decode(context):
            raise wrong("system", "left out, or the one that 'context' begins with")
    new = body.messages[len(system) :]
    earlier = {"messages": [*system, *_STANDING_IN], "continue_final_message": True}
    _, begun = chat_prompt(model, body.model_copy(update=earlier), "prompt")
    _, whole = chat_prompt(
        model, body.model_copy(update={"messages": [*system, *_STANDING_IN, *new]}), "prompt"
    )
    if whole[: len(begun)] != begun:
        raise ApiError(
            "'context' cannot be continued with this model's chat template; use /api/chat", param="context"
        )
    return (*context, *whole[len(begun) :])

"""A wrong chat template: one that writes other prompts than the reference's, or none at all."""

import re
from collections.abc import Iterator, Mapping, Sequence

from rockledge.doctor.case import Case
from rockledge.doctor.finding import Finding, NewFiles
from rockledge.errors import UsageError
from rockledge.model.chat import ChatTemplate

FILES = ("chat_template.jinja", "tokenizer_config.json", "special_tokens_map.json")
"""Where a template and the tokens that it names may stand."""

_USER, _SYSTEM = {"role": "user", "content": "Hello?"}, {"role": "system", "content": "Be brief."}
_ANSWER = {"role": "assistant", "content": "Yes."}
_CONVERSATIONS: tuple[Sequence[Mapping[str, str]], ...] = (
    (_USER,),
    (_USER, _ANSWER, _USER),
    (_SYSTEM, _USER),
)
_MARKER = re.compile(r"<\|[^<>|\s]{1,40}\|>|<(?:start|end)_of_turn>")


def check_chat_template(case: Case) -> Iterator[Finding]:
    """Beside the reference's template where there is one, else by itself."""
    if case.reference is not None:
        theirs = ChatTemplate.from_files(case.reference_files)
        if (said := _difference(case.chat, theirs)) is not None:
            yield Finding(
                check="chat_template",
                place="chat template",
                severity="alarm",
                cause=said,
                mend="take the reference's chat template",
                change=NewFiles({name: case.reference_files.get(name) for name in FILES}),
            )
        return
    if case.chat is None:
        return
    text = rendered(case.chat, _CONVERSATIONS[0])
    if text is None:
        yield _alone("alarm", "the chat template refuses a single question")
        return
    if "Hello?" not in text:
        yield _alone("alarm", "the chat template leaves out what is asked")
    parts = [
        one for one in dict.fromkeys(_MARKER.findall(text)) if len(case.tokenizer.encode(one, False)) > 1
    ]
    if parts:
        yield _alone(
            "remark",
            f"the chat template writes {', '.join(parts[:3])}, which the tokenizer reads as ordinary text",
        )


def _alone(severity: str, cause: str) -> Finding:
    return Finding(
        check="chat_template",
        place="chat template",
        severity="alarm" if severity == "alarm" else "remark",
        cause=cause,
        mend="compare it with the template of the checkpoint: give --reference",
    )


def _difference(ours: ChatTemplate | None, theirs: ChatTemplate | None) -> str | None:
    if (ours is None) != (theirs is None):
        one, other = (
            ("the artifact", "the reference") if theirs is None else ("the reference", "the artifact")
        )
        return f"{one} has a chat template and {other} has none"
    if ours is None or theirs is None:
        return None
    for conversation in _CONVERSATIONS:
        found, wanted = rendered(ours, conversation), rendered(theirs, conversation)
        if found != wanted:
            return f"a wrong chat template: it {_told(found, wanted)}"
    return None


def _told(found: str | None, wanted: str | None) -> str:
    if found is None:
        return "refuses a conversation that the reference's takes"
    if wanted is None:
        return "takes a conversation that the reference's refuses"
    at = next(
        (i for i, (a, b) in enumerate(zip(found, wanted, strict=False)) if a != b),
        min(len(found), len(wanted)),
    )
    return f"writes {found[at : at + 30]!r} where the reference's writes {wanted[at : at + 30]!r}"


def rendered(chat: ChatTemplate, conversation: Sequence[Mapping[str, str]]) -> str | None:
    """The prompt, None where the template refuses it."""
    try:
        return chat.render(conversation)
    except UsageError:
        return None

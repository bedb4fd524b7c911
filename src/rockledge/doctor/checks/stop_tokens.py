"""A stale EOS: the artifact does not stop where answers end, by the reference or by its own chat template."""

from collections.abc import Iterator

from rockledge.doctor.case import Case
from rockledge.doctor.finding import Finding, NewSettings, Severity
from rockledge.errors import UsageError
from rockledge.model.chat import ChatTemplate
from rockledge.model.tokenizer import Tokenizer

_ANSWER = "Seven."
_TURNS = ({"role": "user", "content": "How many?"}, {"role": "assistant", "content": _ANSWER})


def check_stop_tokens(case: Case) -> Iterator[Finding]:
    """Compares the tokens that end an answer."""
    ours = case.artifact.config.eos
    if case.reference is not None and set(ours) != set(case.reference.config.eos):
        wanted = case.reference.config.eos
        yield Finding(
            check="stop_tokens",
            place="config.json: eos",
            severity="alarm",
            cause=f"answers end at {_named(case.tokenizer, ours)}, those of the reference at "
            f"{_named(case.tokenizer, wanted)}: a stale EOS",
            mend="take the reference's end-of-text tokens",
            change=NewSettings({"eos": wanted}),
            details={"found": ours, "expected": wanted},
        )
        return
    if case.chat is None:
        return
    tail = turn_tail(case.chat)
    if tail is None or not tail.strip():
        return
    last = turn_end(case.tokenizer, tail)
    # Where the reference is like that too, the artifact is what was asked for: a base model, for one.
    severity: Severity = "alarm" if case.reference is None else "remark"
    if last is None:
        yield Finding(
            check="stop_tokens",
            place="chat template",
            severity=severity,
            cause=f"the chat template ends an answer with {tail.strip()[:40]!r}, which is not a special "
            "token of this tokenizer: no answer stops there",
            mend="use the chat template that belongs to this model",
            details={"tail": tail},
        )
    elif last not in ours:
        yield Finding(
            check="stop_tokens",
            place="config.json: eos",
            severity=severity,
            cause=f"the chat template ends an answer with {_named(case.tokenizer, (last,))}, but the model "
            f"stops at {_named(case.tokenizer, ours)} only: a stale EOS",
            mend=f"add {last} to the end-of-text tokens",
            change=NewSettings({"eos": (*ours, last)}),
            details={"found": ours, "expected": (*ours, last)},
        )


def turn_tail(chat: ChatTemplate) -> str | None:
    """What the template writes after an answer; None where it does not show answers."""
    try:
        text = chat.render(_TURNS, add_generation_prompt=False)
    except UsageError:
        return None
    _, found, tail = text.rpartition(_ANSWER)
    return tail if found else None


def turn_end(tokenizer: Tokenizer, tail: str) -> int | None:
    """The first special token of a text, None where it has none."""
    special = {i for i, token in tokenizer.added_tokens().items() if token.special}
    return next((i for i in tokenizer.encode(tail, bos=False) if i in special), None)


def _named(tokenizer: Tokenizer, tokens: tuple[int, ...]) -> str:
    shown = [f"{i} ({tokenizer.token_bytes(i).decode(errors='replace')!r})" for i in tokens]
    return " and ".join(shown) if shown else "no token"

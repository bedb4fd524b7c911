"""The commands of a chat as a table: what begins with a slash and one word."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document

from rockledge.cli.chat_conversation import Conversation, load, save
from rockledge.cli.chat_session import ChatSession
from rockledge.cli.chat_settings import changed, names
from rockledge.cli.sizes import counted
from rockledge.errors import UsageError
from rockledge.places import expanded

OVERWRITE = "--overwrite"


@dataclass(frozen=True)
class ChatCommand:
    """`run` gets the session and the text after the command's name, and may raise RockledgeError or OSError,
    which change nothing."""

    arguments: str
    help: str
    run: Callable[[ChatSession, str], None]


def dispatch(session: ChatSession, text: str) -> None:
    """Runs the command that `text` is, or else answers it as a message.

    `/word` alone or before a space is a command; `/usr/bin` and `/* x */` are messages, and so is anything
    after a space.
    """
    match = re.fullmatch(r"/([A-Za-z?]+)(?:\s+(.*))?", text, re.DOTALL)
    if match is None:
        session.answer(session.conversation.asked(text))
        return
    name = match[1].lower()
    command = COMMANDS.get(name) or COMMANDS.get(ALIASES.get(name, ""))
    if command is None:
        near = difflib.get_close_matches(name, [*COMMANDS, *ALIASES], 1)
        hint = f"did you mean /{near[0]}? " if near else ""
        raise UsageError(
            f"there is no command /{name}; {hint}/help shows all, a space before it makes it a message"
        )
    argument = (match[2] or "").strip()
    if argument and not command.arguments:
        raise UsageError(f"/{name} takes nothing after it, found {argument!r}")
    command.run(session, argument)


def _help(session: ChatSession, argument: str) -> None:
    rows = [(f"/{name} {command.arguments}".rstrip(), command.help) for name, command in COMMANDS.items()]
    wide = max(len(row[0]) for row in rows)
    session.terminal.note("\n".join(f"{usage:{wide}}  {text}" for usage, text in (*rows, *KEYS)))


def _system(session: ChatSession, argument: str) -> None:
    if argument:
        text = None if argument == "-" else argument
        session.conversation = Conversation(text, session.conversation.turns)
    session.terminal.note(f"[system message: {session.conversation.system or 'none'}]")


def _set(session: ChatSession, argument: str) -> None:
    name, _, value = argument.partition(" ")
    if value.strip():
        session.settings = changed(session.settings, session.start, session.chat, name, value.strip())
    elif name and name not in names(session.chat):
        raise UsageError(f"there is no setting {name!r}, expected {', '.join(names(session.chat))}")
    values = session.settings.values()
    shown = [name] if name else names(session.chat)
    session.terminal.note("\n".join(f"{key} = {_shown(values.get(key))}" for key in shown))


def _shown(value: object) -> str:
    """A value as `/set` takes it; None is a fresh seed, or a variable that is left to the template."""
    return "none" if value is None else value if isinstance(value, str) else json.dumps(value)


def _save(session: ChatSession, argument: str) -> None:
    words = argument.split()
    overwrite = OVERWRITE in words[:1] + words[-1:]
    name = argument.removeprefix(OVERWRITE).removesuffix(OVERWRITE).strip() if overwrite else argument
    save(session.conversation, _path(name), overwrite)
    session.terminal.note(f"[saved {_messages(session.conversation)} to {name}]")


def _load(session: ChatSession, argument: str) -> None:
    before, session.conversation = session.conversation, load(_path(argument))
    replaced = f" in place of {_messages(before)}" if before.turns else ""
    session.terminal.note(f"[loaded {_messages(session.conversation)}{replaced}]")


def _path(name: str) -> Path:
    if not name:
        raise UsageError("the name of a file is missing, expected one such as talk.json")
    return expanded(name)


def _messages(conversation: Conversation) -> str:
    return counted(len(conversation.messages()), "message")


def _clear(session: ChatSession, argument: str) -> None:
    forgotten = counted(len(session.conversation.turns), "message")
    session.conversation = Conversation(session.conversation.system)
    kept = "; the system message stays" if session.conversation.system else ""
    session.terminal.note(f"[{forgotten} forgotten{kept}]")


def _regenerate(session: ChatSession, argument: str) -> None:
    sampling = session.settings.sampling
    if sampling.temperature == 0 or sampling.seed is not None:
        why = "temperature 0" if sampling.temperature == 0 else "a seed"
        session.terminal.note(f"[{why} gives the same answer to the same conversation; see /set]")
    session.answer(session.conversation.unanswered())


def _stats(session: ChatSession, argument: str) -> None:
    messages = session.conversation.messages()
    tokens = len(session.tokens(messages)) if session.conversation.turns else 0
    lines = [f"{_messages(session.conversation)}, {tokens} of {session.engine.context} tokens of context"]
    if session.turns:
        drawn = sum(turn.completion_tokens for turn in session.turns)
        answers = counted(len(session.turns), "answer")
        lines += [f"{answers}, {counted(drawn, 'token')}", f"last {session.turns[-1].speed()}"]
    session.terminal.note("\n".join(lines))


def _bye(session: ChatSession, argument: str) -> None:
    session.over = True


COMMANDS: Mapping[str, ChatCommand] = {
    "help": ChatCommand("", "shows this", _help),
    "system": ChatCommand("[TEXT]", "shows or sets the system message; - removes it", _system),
    "set": ChatCommand("[NAME [VALUE]]", "shows or sets how to answer; default takes it back", _set),
    "save": ChatCommand("FILE", f"writes the messages as JSON; {OVERWRITE} replaces a file", _save),
    "load": ChatCommand("FILE", "goes on with messages that were saved", _load),
    "clear": ChatCommand("", "forgets the messages", _clear),
    "regenerate": ChatCommand("", "answers the last message again", _regenerate),
    "stats": ChatCommand("", "shows lengths and speeds", _stats),
    "bye": ChatCommand("", "ends the conversation", _bye),
}
ALIASES = {"exit": "bye", "quit": "bye", "?": "help"}
KEYS = (
    ("Alt-Enter", 'a new line; or write between """ and """'),
    ("Up, Ctrl-R", "messages typed before"),
    ("Ctrl-C", "stops an answer"),
    ("Ctrl-D", "ends the conversation"),
)


class CommandCompleter(Completer):
    """Names of commands, of settings after /set, and of files after /save and /load."""

    def __init__(self, settings: Iterable[str]) -> None:
        self._settings = tuple(settings)
        self._files = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Of the word before the cursor."""
        text = document.text_before_cursor
        command, space, rest = text.partition(" ")
        if not space:
            return _starting(text, [f"/{name}" for name in (*COMMANDS, *ALIASES)] if text[:1] == "/" else [])
        if command == "/set" and " " not in rest:
            return _starting(rest, self._settings)
        if command in ("/save", "/load"):
            return self._files.get_completions(Document(rest, len(rest)), complete_event)
        return []


def _starting(begun: str, whole: Iterable[str]) -> Iterable[Completion]:
    return [Completion(word, -len(begun)) for word in whole if word.startswith(begun)]

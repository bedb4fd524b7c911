"""`rockledge chat`: a conversation in the terminal, or a script of user messages on stdin."""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, TextIO

from rockledge import places
from rockledge.cli.chat_script import answer_script
from rockledge.cli.command import Command
from rockledge.cli.engine_options import (
    add_engine_arguments,
    add_model_argument,
    add_sampling_arguments,
    add_template_arguments,
    load_engine,
    sampling,
)
from rockledge.cli.terminal import Terminal
from rockledge.errors import ArtifactError, RockledgeError, UsageError
from rockledge.runtime.choices import CONVERSATION

if TYPE_CHECKING:
    from rockledge.model.chat import ChatTemplate
    from rockledge.runtime.engine import Engine


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `chat`."""
    add_model_argument(parser)
    parser.add_argument("--system", metavar="TEXT", help="system message of the conversation")
    add_engine_arguments(parser)
    add_template_arguments(parser)
    add_sampling_arguments(parser, max_tokens=1024, otherwise=CONVERSATION)


def run(args: argparse.Namespace, terminal: Terminal) -> dict[str, Any]:
    """Talks with whoever sits at the terminal, or answers what comes through a pipe line by line."""
    tty = _tty()
    with _keys_unseen() if tty else nullcontext(), load_engine(args) as engine:
        engine.require_head()
        if engine.chat is None:
            raise UsageError(
                f"{args.artifact} has no chat template; run: rockledge run {args.artifact} PROMPT --raw"
            )
        if tty is None:
            return answer_script(args, engine, terminal)
        return _converse(args, engine, engine.chat, terminal, tty)


def _tty() -> TextIO | None:
    """The output of the terminal that somebody types into; None where nobody does."""
    if not sys.stdin.isatty():
        return None
    return next((stream for stream in (sys.stdout, sys.stderr) if stream.isatty()), None)


def _keys_unseen() -> Any:
    from rockledge.cli.window import keys_unseen

    return keys_unseen(sys.stdin.fileno(), lines=False)


def _converse(
    args: argparse.Namespace, engine: Engine, chat: ChatTemplate, terminal: Terminal, tty: TextIO
) -> dict[str, Any]:
    from rockledge.cli.chat_commands import CommandCompleter, dispatch
    from rockledge.cli.chat_history import ChatHistory
    from rockledge.cli.chat_session import ChatSession
    from rockledge.cli.chat_settings import ChatSettings, names
    from rockledge.cli.chat_terminal import ChatTerminal
    from rockledge.cli.window import WindowPrinter

    history = ChatHistory(places.chat_history())
    answers = WindowPrinter(terminal, tty) if tty is sys.stdout else terminal
    screen = ChatTerminal(tty, answers, history, CommandCompleter(names(chat)))
    settings = ChatSettings(sampling(args, engine), args.max_tokens)
    session = ChatSession(engine, chat, screen, args.system, settings, args.stop)
    with screen.attached():
        if history.failure:
            screen.note(
                f"[messages are not kept for the next time: {places.chat_history()}: {history.failure}]"
            )
        screen.note("Type a message. /help shows commands and keys, Ctrl-D ends the conversation.")
        while not session.over and (text := screen.read()) is not None:
            try:
                dispatch(session, text)
            except ArtifactError:
                raise  # damage on disk: no later answer can be right
            except RockledgeError as error:
                screen.note(f"[{error}]")
            except OSError as error:
                place = f"{error.filename}: " if error.filename else ""
                screen.note(f"[{place}{error.strerror or error}]")
    return {"messages": session.conversation.messages(), "turns": [turn.body() for turn in session.turns]}


COMMAND = Command("chat", "talk with a model", add_arguments, run)

"""A chat while it goes on: the conversation, its settings, and turns that succeed or change nothing."""

from __future__ import annotations

from collections.abc import Sequence

from rockledge.cli.answer import Answer, stream_answer
from rockledge.cli.chat_conversation import Conversation, Message, fitting
from rockledge.cli.chat_settings import ChatSettings
from rockledge.cli.chat_terminal import ChatTerminal
from rockledge.cli.sizes import counted
from rockledge.model.chat import ChatTemplate
from rockledge.runtime.engine import Engine
from rockledge.runtime.model import Model


class ChatSession:
    """Commands of the chat change `conversation` and `settings`, and end it with `over`. `turns` are all
    answers so far; `start` is what settings go back to."""

    def __init__(
        self,
        engine: Engine,
        chat: ChatTemplate,
        terminal: ChatTerminal,
        system: str | None,
        settings: ChatSettings,
        stop: Sequence[str],
    ) -> None:
        self.engine = engine
        self.chat = chat
        self.terminal = terminal
        self.conversation = Conversation(system)
        self.settings = self.start = settings
        self.turns: list[Answer] = []
        self.over = False
        self._stop = stop
        self._left_out = 0

    def tokens(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a conversation to be answered next."""
        return Model(self.engine).tokens(messages, self.settings.variables)

    def answer(self, asked: Conversation) -> None:
        """Answers the last message of `asked`, which then is the conversation. RockledgeError leaves the
        conversation as it was, and so does Ctrl-C before the answer has begun."""
        prompt, left_out = fitting(asked, self.tokens, self.engine.context)
        if left_out > self._left_out:
            self.terminal.note("[the context is full: the oldest messages are no longer read]")
        answer = stream_answer(
            self.engine,
            prompt,
            self.terminal,
            max_tokens=self.settings.max_tokens,
            sampling=self.settings.sampling,
            stop=self._stop,
            cancelled=self.terminal.stopped,
        )
        self._left_out = left_out
        if answer.finish == "interrupted" and not answer.text:
            self.terminal.note("[stopped before the answer began; Up brings the message back]")
            return
        self.conversation = asked.answered(answer.text)
        self.turns.append(answer)
        if answer.finish == "interrupted":
            self.terminal.note("[stopped; Ctrl-C again ends the conversation]")
        elif answer.finish == "length":
            full = answer.completion_tokens < self.settings.max_tokens
            why = "the context is full" if full else "/set max_tokens allows longer ones"
            drawn = counted(answer.completion_tokens, "token")
            self.terminal.note(f"[the answer was cut after {drawn}: {why}]")

"""Conversations to prompts: the checkpoint's own Jinja template, in a sandbox, with what such templates
expect."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from rockledge.errors import CheckpointError, UsageError
from rockledge.model.tokenizer import token_config, token_text


class ChatTemplate:
    """One template and the special tokens it may name."""

    def __init__(self, source: str, tokens: Mapping[str, str]) -> None:
        self.source = source
        self._tokens = dict(tokens)
        try:
            self._template = _environment().from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise CheckpointError(
                f"the chat template is no valid Jinja ({error}); fetch the checkpoint again"
            ) from error

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> "ChatTemplate | None":
        """From chat_template.jinja or tokenizer_config.json; None for a model without a chat template."""
        config = token_config(files)
        if "chat_template.jinja" in files:
            source: Any = files["chat_template.jinja"].decode(errors="replace")
        else:
            source = config.get("chat_template")
        if isinstance(source, list):  # several, each with a name
            named = [entry for entry in source if isinstance(entry, dict)]
            source = next((entry.get("template") for entry in named if entry.get("name") == "default"), None)
        if not isinstance(source, str):
            return None
        tokens = {
            key: text
            for key, value in config.items()
            if key.endswith("_token") and (text := token_text(value)) is not None
        }
        return cls(source, tokens)

    def render(self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True) -> str:
        """The prompt of a conversation: messages with `role` and `content`, then the opening of the next
        answer.

        Encode it with `bos=False`. Raises UsageError when the template refuses the messages.
        """
        try:
            return self._template.render(
                messages=[dict(message) for message in messages],
                add_generation_prompt=add_generation_prompt,
                tools=None,
                documents=None,
                **self._tokens,
            )
        except (
            jinja2.TemplateError,
            TypeError,
            ValueError,
            AttributeError,
            LookupError,
            ArithmeticError,
            RecursionError,
        ) as error:
            raise UsageError(f"the model's chat template refuses these messages: {error}") from error


class _GenerationBlock(Extension):
    """`{% generation %}` marks an assistant's words for training; here only its body matters."""

    tags = {"generation"}  # noqa: RUF012 (as the base class has it)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The body, unchanged."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _GenerationBlock]
    )
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    # Templates embed JSON in prompts, so unlike Jinja's own filter nothing is escaped for HTML.
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(
        value, ensure_ascii=False, indent=indent
    )
    return environment


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)

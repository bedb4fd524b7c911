"""Conversations to prompts: the checkpoint's own Jinja template, in a sandbox, with the environment that
templates expect.

The environment is that of transformers (`transformers.utils.chat_template_utils`): the same filters, globals
and tags, so that a template renders to the same text.
"""

import json
import re
import traceback
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import meta, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.utils import Namespace

from rockledge.errors import UsageError
from rockledge.model.bounded_template import BoundedEnvironment, TooLongError, bounded
from rockledge.model.special_tokens import special_tokens, token_config

_DEFAULT, _TOOL_USE = "default", "tool_use"

# What a template is given of a conversation, which switches cannot replace.
_CONVERSATION = frozenset({"messages", "add_generation_prompt", "tools", "documents"})

# Names under which a message may hold the thoughts before an answer; the first is what templates read.
_REASONING = ("reasoning_content", "thinking", "reasoning")


class ChatTemplate:
    """One template and the special tokens it may name. `tool_use` is the one for conversations with tools,
    where there is another; `switches` are further variables, such as `enable_thinking`. A template that is
    not valid Jinja refuses every conversation."""

    def __init__(
        self,
        source: str,
        tokens: Mapping[str, str],
        tool_use: str | None = None,
        switches: Mapping[str, Any] | None = None,
    ) -> None:
        self.source = source
        self.switches = _checked_switches(switches or {})
        self._tokens = dict(tokens)
        self._default = _compiled(source)
        self._tool_use = None if tool_use is None else _compiled(tool_use)
        compiled = ((source, self._default), (tool_use, self._tool_use))
        self._sources = [text for text, made in compiled if text and isinstance(made, jinja2.Template)]

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> "ChatTemplate | None":
        """From chat_template.jinja or tokenizer_config.json; None for a model without a chat template, or
        with several of which none is the default."""
        named = template_sources(files)
        if _DEFAULT not in named:
            return None
        return cls(named[_DEFAULT], special_tokens(files), named.get(_TOOL_USE))

    @classmethod
    def replacing(cls, source: str, files: Mapping[str, bytes]) -> "ChatTemplate":
        """The template `source` in place of the checkpoint's own, with its special tokens. UsageError where
        it is not valid Jinja."""
        made = cls(source, special_tokens(files))
        if isinstance(made._default, str):
            raise UsageError(made._default.replace("the model's chat template", "the chat template"))
        return made

    def with_switches(self, switches: Mapping[str, Any]) -> "ChatTemplate":
        """The same template with further variables for every conversation, which a call may set otherwise.
        UsageError for one that the template does not read, since it would change nothing."""
        changed = copy(self)
        changed.switches = {**self.switches, **_checked_switches(switches)}
        if unread := sorted(set(switches) - self.variables()):
            read = ", ".join(sorted(self.variables())) or "none"
            raise UsageError(
                f"the chat template does not read {unread[0]!r}, expected one of its variables: {read}"
            )
        return changed

    @property
    def sources(self) -> tuple[str, ...]:
        """The texts of the templates that are valid."""
        return tuple(self._sources)

    @property
    def takes_tools(self) -> bool:
        """Whether a template tells the model of tools."""
        return "tools" in self._read()

    @property
    def takes_documents(self) -> bool:
        """Whether a template shows documents to the model."""
        return "documents" in self._read()

    def _read(self) -> set[str]:
        """All variables that the templates read."""
        names: set[str] = set()
        for source in self._sources:
            names |= meta.find_undeclared_variables(_ENVIRONMENT.parse(source))
        return names

    def variables(self) -> set[str]:
        """What the templates read besides what a conversation itself gives."""
        return self._read() - _CONVERSATION - self._tokens.keys() - _ENVIRONMENT.globals.keys()

    @property
    def undefined_tokens(self) -> list[str]:
        """Special tokens that the template names and the checkpoint does not define, such as "bos_token"."""
        if isinstance(self._default, str):
            return []
        names = meta.find_undeclared_variables(_ENVIRONMENT.parse(self.source))
        return sorted(name for name in names - self._tokens.keys() if name.endswith("_token"))

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = True,
        tools: Sequence[Any] | None = None,
        documents: Sequence[Any] | None = None,
        switches: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt of a conversation: messages with `role` and `content`, then the opening of the next
        answer. `tools` are JSON schemas, `documents` objects with `title` and `text`, `switches` further
        variables (`chat_template_kwargs` elsewhere); one that the template does not read changes nothing.

        Encode it with `bos=False`. Raises UsageError when the template refuses the messages.
        """
        template = self._default if tools is None or self._tool_use is None else self._tool_use
        if isinstance(template, str):
            raise UsageError(template)
        variables = {**self._tokens, **self.switches, **_checked_switches(switches or {})}
        try:
            with bounded():
                return template.render(
                    messages=[_without_nulls(message) for message in messages],
                    add_generation_prompt=add_generation_prompt,
                    tools=tools,
                    documents=documents,
                    **variables,
                )
        except Exception as error:  # a template is somebody else's program and can fail in any way
            raise UsageError(f"the model's chat template refuses these messages: {_reason(error)}") from error


def _checked_switches(switches: Mapping[str, Any]) -> dict[str, Any]:
    """The same; UsageError for a name that the conversation itself has."""
    if taken := sorted(_CONVERSATION & switches.keys()):
        raise UsageError(
            f"{taken[0]!r} is part of every conversation, expected another variable of the chat template; "
            "leave it out"
        )
    return dict(switches)


def template_sources(files: Mapping[str, bytes]) -> dict[str, str]:
    """Chat templates by name: chat_template.jinja is the default one and goes before tokenizer_config.json,
    which has one template or a list of named ones."""
    if "chat_template.jinja" in files:
        return {_DEFAULT: files["chat_template.jinja"].decode(errors="replace")}
    source = token_config(files).get("chat_template")
    if isinstance(source, str):
        return {_DEFAULT: source}
    entries = source if isinstance(source, list) else []
    return {
        entry["name"]: entry["template"]
        for entry in entries
        if isinstance(entry, dict)
        and isinstance(entry.get("name"), str)
        and isinstance(entry.get("template"), str)
    }


def with_named_templates(files: Mapping[str, bytes], named: Mapping[str, bytes]) -> dict[str, bytes]:
    """`files` with further templates, by name, of a checkpoint's folder `additional_chat_templates`.

    They go into tokenizer_config.json as a list, the older way to write the same; as in transformers, a list
    that was there before does not count beside files.
    """
    if not named:
        return dict(files)
    templates = {name: text.decode(errors="replace") for name, text in named.items()}
    if "chat_template.jinja" in files:
        templates = {**template_sources(files), **templates}
    listed = [{"name": name, "template": text} for name, text in templates.items()]
    config = {**token_config(files), "chat_template": listed}
    rest = {name: data for name, data in files.items() if name != "chat_template.jinja"}
    return {**rest, "tokenizer_config.json": json.dumps(config, ensure_ascii=False, indent=2).encode()}


def _without_nulls(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message as templates expect it: what is null is not there, and thoughts have their usual names."""
    found = {key: value for key, value in message.items() if value is not None}
    thoughts = next((found[key] for key in _REASONING if key in found), None)
    if thoughts is None:
        return found
    return {"thinking": thoughts, **found, "reasoning_content": thoughts}


def _compiled(source: str) -> jinja2.Template | str:
    """The template, or a sentence that says why it is not valid."""
    try:
        return _ENVIRONMENT.from_string(source)
    except jinja2.TemplateSyntaxError as error:
        return f"the model's chat template is not valid Jinja (line {error.lineno}: {error.message})"
    except Exception as error:  # brackets nested too deeply, for one, fail within Python's own compiler
        return f"the model's chat template is not valid Jinja ({type(error).__name__})"


def _reason(error: Exception) -> str:
    """Why a template failed: its own message, or what is missing and where; never Python's message."""
    if isinstance(error, jinja2.UndefinedError):
        missing = re.search(r"has no attribute '?(.+?)'?$", error.message or "")
        what = f"{missing[1]!r} is missing" if missing else str(error.message)
    elif isinstance(error, jinja2.TemplateError):
        said = str(error.message).strip()
        return said if said.endswith("...") else said.removesuffix(".")
    elif isinstance(error, TooLongError):
        what = str(error)
    elif isinstance(error, OverflowError):
        what = "it loops too often"
    else:
        what = "it cannot work with what they hold"
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == "<template>"]
    return f"{what} (line {lines[-1]} of the template)" if lines else what


class _GenerationBlock(Extension):
    """`{% generation %}` marks an assistant's words for training; here only its body matters. What the body
    sets stays inside of it."""

    tags = {"generation"}  # noqa: RUF012 (as the base class has it)

    def parse(self, parser: Parser) -> nodes.Node:
        """The body, in a scope of its own."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller: Callable[[], str]) -> str:
        return caller()


class _Namespace(Namespace):
    """Jinja's `namespace`, without names that begin with an underscore: they could reach Python's own."""

    def __init__(*args: Any, **values: Any) -> None:  # no `self`, so that a template may use the name
        self, *given = args
        attributes = dict(*given, **values)
        for name in attributes:
            _check_name(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace cannot hold {name!r}")


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Templates embed JSON in prompts, so unlike Jinja's own filter nothing is escaped for HTML.
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(format: str) -> str:  # noqa: A002 (a template may use the name)
    return datetime.now().strftime(format)


def _environment() -> BoundedEnvironment:
    environment = BoundedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _GenerationBlock]
    )
    environment.filters["tojson"] = _tojson
    environment.globals |= {
        "raise_exception": _refuse,
        "strftime_now": _strftime_now,
        "namespace": _Namespace,
    }
    environment.bound_filters()
    return environment


_ENVIRONMENT = _environment()

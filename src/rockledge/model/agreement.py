"""Whether the small files of a checkpoint belong to each other and to its weights, checked when it is
opened."""

from collections.abc import Iterator, Mapping
from contextlib import suppress

from rockledge.errors import CheckpointError, UsageError
from rockledge.model.chat import ChatTemplate, template_sources
from rockledge.model.config import ModelConfig
from rockledge.model.special_tokens import special_tokens, token_config
from rockledge.model.tokenizer import Tokenizer

_QUESTION = {"role": "user", "content": "?"}
_ANSWER = {"role": "assistant", "content": "!"}


def check_agreement(files: Mapping[str, bytes], config: ModelConfig) -> tuple[str, ...]:
    """Sentences about what is unusual in tokenizer, chat template and configuration.

    `files` are a checkpoint's small files, tokenizer.json among them. CheckpointError when the tokenizer
    makes ids that the model has no rows for: of ordinary pieces, or of tokens that are in use (that texts
    begin or answers end with, or that the chat template writes).
    """
    tokenizer, chat = Tokenizer.from_files(files, rows=config.vocab), ChatTemplate.from_files(files)
    names, written = special_tokens(files), _written(chat)
    rows = f"the model has rows for 0 to {config.vocab - 1} only"
    for name in ("bos_token", "eos_token"):
        if names.get(name) in tokenizer.without_row:
            raise _outside_rows(f"its {name} {names[name]!r}", tokenizer.without_row[names[name]], rows)
    for token, i in tokenizer.without_row.items():
        if token in written:
            raise _outside_rows(f"{token!r}, which the chat template writes,", i, rows)
    for i in tokenizer.beginning:
        if i >= config.vocab:
            raise _outside_rows("what texts begin with", i, rows)
    for i in tokenizer.ending if config.headless else ():
        if i >= config.vocab:
            raise _outside_rows("what texts end with", i, rows)
    notes = [
        f"The tokenizer gives {token!r} the id {i}, but {rows}; nothing uses that token, and its text is "
        "read as any other."
        for token, i in tokenizer.without_row.items()
    ]
    return (*notes, *_beginning(files, tokenizer), *_endings(config, tokenizer), *_template(files, chat))


def _outside_rows(what: str, i: int, rows: str) -> CheckpointError:
    return CheckpointError(
        f"the tokenizer gives {what} the id {i}, but {rows}; use the tokenizer that belongs to these weights"
    )


def _written(chat: ChatTemplate | None) -> str:
    """What the template may write: its source, for names spelt out, and two prompts, for names put together
    (and for those of special tokens)."""
    if chat is None:
        return ""
    found = chat.source
    for messages in ([_QUESTION], [_QUESTION, _ANSWER, _QUESTION]):
        with suppress(UsageError):  # _template says so
            found += chat.render(messages)
    return found


def _beginning(files: Mapping[str, bytes], tokenizer: Tokenizer) -> Iterator[str]:
    asked = token_config(files).get("add_bos_token")
    if isinstance(asked, bool) and asked != bool(tokenizer.beginning):
        puts = "puts a token" if tokenizer.beginning else "puts nothing"
        yield (
            f"The setting add_bos_token is {str(asked).lower()} in tokenizer_config.json, but the "
            f"post-processor in tokenizer.json {puts} in front of a text; the post-processor is followed, as "
            "in transformers 5."
        )


def _endings(config: ModelConfig, tokenizer: Tokenizer) -> Iterator[str]:
    if not config.eos:
        yield "No token is known that ends an answer, so answers end at the limit of tokens only."
    for i in config.eos:
        if not tokenizer.token_bytes(i):
            yield f"An answer ends with the id {i}, which the tokenizer has no token for."


def _template(files: Mapping[str, bytes], chat: ChatTemplate | None) -> Iterator[str]:
    if chat is None:
        if named := sorted(template_sources(files)):
            yield f"There are chat templates ({', '.join(named)}) but no default one, so there is no chat."
        return
    try:
        chat.render([_QUESTION])
    except UsageError as error:
        yield f"Not even one message from a user can be put into a prompt: {error}."
    if token_config(files).get("split_special_tokens") is True:
        yield (
            "The setting split_special_tokens is true in tokenizer_config.json, so special tokens that the "
            "chat template writes are read as ordinary text, as in transformers."
        )
    for name in chat.undefined_tokens:
        yield f"The chat template names {name}, which no file defines; nothing is put there."

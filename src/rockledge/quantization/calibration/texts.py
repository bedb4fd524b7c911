"""The built-in calibration mix: short, diverse, the same everywhere, and free to ship.

Calibration asks which inputs matter to each matrix, so the mix spans what a gateway's model meets: narrative
and argument, dialogue and verse, code and configuration, numbers and logs, and conversations in the model's
own chat format. None of it is evaluation text (docs/measuring.md names those).
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files

Message = dict[str, str]

_CONVERSATIONS = "conversations.jsonl"


@dataclass(frozen=True)
class TextSource:
    """Which work the beginning of a part is in this file, and why it may be shipped."""

    file: str
    title: str
    licence: str


SOURCES: tuple[TextSource, ...] = (
    TextSource("scandal_in_bohemia.txt", "A. C. Doyle, A Scandal in Bohemia (1891)", "public domain"),
    TextSource("blue_carbuncle.txt", "A. C. Doyle, The Blue Carbuncle (1892)", "public domain"),
    TextSource("origin_of_species.txt", "C. Darwin, On the Origin of Species (1859), I", "public domain"),
    TextSource("wealth_of_nations.txt", "A. Smith, The Wealth of Nations (1776), I", "public domain"),
    TextSource("as_you_like_it.txt", "W. Shakespeare, As You Like It (1599), II", "public domain"),
    TextSource("paradise_lost.txt", "J. Milton, Paradise Lost (1667), I", "public domain"),
    TextSource("code.txt", "excerpts of Rockledge and samples in other languages", "Apache-2.0"),
    TextSource("numbers.txt", "tables, arithmetic, logs and JSON, made for Rockledge", "Apache-2.0"),
    TextSource(_CONVERSATIONS, "conversations in five languages, written for Rockledge", "Apache-2.0"),
)


def default_calibration(render: Callable[[list[Message]], str | None] | None = None) -> list[str]:
    """The built-in documents, one a source, in the order of `SOURCES`; about 200,000 characters.

    `render` turns the messages of one conversation into the model's chat format (its chat template), or into
    None where the format has no place for them. Without it, or where it takes none, the messages follow each
    other as plain paragraphs.
    """
    return [_document(source, render) for source in SOURCES]


def default_conversations() -> list[list[Message]]:
    """The built-in conversations: lists of messages with `role` and `content`."""
    return [json.loads(line)["messages"] for line in _read(_CONVERSATIONS).split("\n") if line]


def _document(source: TextSource, render: Callable[[list[Message]], str | None] | None) -> str:
    if source.file != _CONVERSATIONS:
        return _read(source.file)
    conversations = default_conversations()
    rendered = [] if render is None else [render(turns) for turns in conversations]
    accepted = [text for text in rendered if text is not None]
    if accepted:
        return "".join(accepted)
    return "\n\n".join(message["content"] for turns in conversations for message in turns)


def _read(name: str) -> str:
    return (files("rockledge.quantization") / "calibration_texts" / name).read_text(encoding="utf-8")

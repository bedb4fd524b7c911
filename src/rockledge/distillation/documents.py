"""The documents that a student learns from: what files and folders hold, without empty ones and repetitions,
and which of them are held out."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rockledge.distillation.document_files import find_documents, listed, read_document, shown_name
from rockledge.errors import UsageError
from rockledge.model.stored_messages import stored_list, stored_messages
from rockledge.regular_file import read_regular

_JSON_LINES = (".jsonl", ".ndjson")


@dataclass(frozen=True)
class Document:
    """A text, or a conversation: `messages` with `role` and `content`, and perhaps `tools`. `place` says
    where it is, such as "line 3 of chats.jsonl"; `title` is what its file calls itself."""

    place: str
    text: str = ""
    messages: tuple[Mapping[str, Any], ...] = ()
    tools: tuple[Any, ...] = ()
    title: str = ""

    @property
    def digest(self) -> str:
        """SHA-256 of what it says, alike for documents that differ in white space only."""
        said = [self.text, [dict(message) for message in self.messages], list(self.tools)]
        text = " ".join(json.dumps(said, sort_keys=True, ensure_ascii=False).split())
        if self.text:
            text = " ".join(self.text.split())
        return hashlib.sha256(text.encode(errors="replace")).hexdigest()


@dataclass(frozen=True)
class Documents:
    """Documents in the order of the files; `notes` are sentences about what was left out."""

    documents: tuple[Document, ...]
    notes: tuple[str, ...]


def read_documents(paths: Sequence[str | Path]) -> Documents:
    """The documents of files and folders. A .jsonl or .ndjson file has one a line, an object with `text` or
    with `messages`; any other file is one document. Of a folder, every file that `find_documents` names is
    one, and what cannot be read is left out with a note.

    Raises:
        UsageError: a file that was named cannot be read, a line is neither, or there is no document at all.
        RockledgeError: the library for HTML or PDF is not installed.
    """
    found: list[Document] = []
    notes: list[str] = []
    seen: set[str] = set()
    for path in map(Path, paths):
        empty, repeated = [], []
        of_path, told = _of_folder(path) if path.is_dir() else (_of_file(path), [])
        for number, document in of_path:
            if not document.text.strip() and not document.messages:
                empty.append(number)
            elif document.digest in seen:
                repeated.append(number)
            else:
                seen.add(document.digest)
                found.append(document)
        notes += told
        notes += [
            f"{shown_name(path.name or str(path))}: {_places(places)} left out, {why}."
            for places, why in ((empty, "empty"), (repeated, "said before"))
            if places
        ]
    if not found:
        names = ", ".join(map(str, paths))
        raise UsageError(
            f"{names} holds no document to learn from; give text, or lines of JSON with text"
            + (f" ({notes[0].removesuffix('.')})" if notes else "")
        )
    return Documents(tuple(found), tuple(notes))


def held_out(documents: Sequence[Document], share: float) -> tuple[list[Document], list[Document]]:
    """(to learn from, held out): about `share` of the documents, chosen by their digests alone, so that a
    document that is added or moved changes nothing for the others. At least one of several is held out."""
    if share <= 0 or len(documents) < 2:
        return list(documents), []
    ranked = sorted(documents, key=lambda document: document.digest)
    kept = {id(document) for document in ranked[: max(1, round(share * len(ranked)))]}
    return (
        [document for document in documents if id(document) not in kept],
        [document for document in documents if id(document) in kept],
    )


def _of_folder(folder: Path) -> tuple[list[tuple[int | str, Document]], list[str]]:
    """(name, document) of every file that can be read, and notes about the others."""
    there = find_documents(folder)
    found: list[tuple[int | str, Document]] = []
    notes = [f"{shown_name(folder.name or str(folder))}: {note}" for note in there.notes]
    for name, path in there.files:
        try:
            found.append((name, _of_document(name, path)))
        except UsageError as error:
            notes.append(f"Left out: {str(error).split(';')[0]}.")
    return found, notes


def _of_document(name: str, path: Path) -> Document:
    read = read_document(path)
    return Document(shown_name(name), read.text, title=shown_name(read.title))


def _of_file(path: Path) -> list[tuple[int | str, Document]]:
    kind = path.suffix.lower()
    if kind == ".json":
        raise UsageError(
            f"{path} is JSON, expected text or JSON lines; write one object a line to a .jsonl file, or "
            "name it .txt to learn it as it is"
        )
    if kind not in _JSON_LINES:
        return [(1, _of_document(path.name, path))]
    try:
        content = read_regular(path).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"{path} cannot be read as UTF-8 text ({reason.lower()}); give another file"
        ) from error
    # Not `splitlines`: JSON may hold line separators other than this one.
    return [
        (number, _of_line(path, number, line))
        for number, line in enumerate(content.split("\n"), start=1)
        if line.strip()
    ]


def _of_line(path: Path, number: int, line: str) -> Document:
    place = f"line {number} of {path.name}"
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{place} is not JSON ({error}); write one object a line") from error
    if not isinstance(entry, dict):
        raise UsageError(f'{place} is not an object with "text" or "messages"; write one object a line')
    text, messages = entry.get("text"), entry.get("messages")
    if isinstance(text, str) and not messages:
        return Document(place, text)
    if not isinstance(messages, list) or not isinstance(text, (str, type(None))):
        raise UsageError(f'{place} has neither "text" nor "messages"; add one')
    if text:
        raise UsageError(f'{place} has both "text" and "messages"; leave out what is not to be learnt')
    tools = stored_list(entry, "tools", place)
    return Document(place, "", tuple(stored_messages(entry, place)), tuple(tools))


def _places(places: Sequence[int | str]) -> str:
    """Line numbers of a file, or names in a folder."""
    if isinstance(places[0], str):
        return listed([str(place) for place in places])
    if len(places) == 1:
        return f"line {places[0]}"
    return f"lines {listed([str(place) for place in places])}"

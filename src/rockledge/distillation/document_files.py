"""Documents as files: which files of a folder are documents, and the title and text of each.

.md .markdown .txt .text   text, as it is
.html .htm .xhtml          the main text, without navigation (html_text.py)
.pdf                       the text of its pages (pdf_text.py)
"""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rockledge.errors import UsageError
from rockledge.regular_file import open_regular
from rockledge.units import show_size

_LISTED = 5  # names that a sentence lists one by one


@dataclass(frozen=True)
class DocumentText:
    """What a file says. `title` is its own, or the name of the file without its ending; `text` has headings
    as lines that begin with `#`, code with its lines kept, and a line for each row of a table."""

    title: str
    text: str


@dataclass(frozen=True)
class FoundDocuments:
    """Files in the order of their names in the folder, each (name with `/`, path); `notes` are sentences
    about what was left out."""

    files: tuple[tuple[str, Path], ...]
    notes: tuple[str, ...]


def _of_text(content: bytes) -> tuple[str | None, str]:
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    text = content.decode(encoding)
    if "\0" in text:
        raise ValueError("it holds zero bytes, as binary files do")
    return None, text


def _of_markdown(content: bytes) -> tuple[str | None, str]:
    _, text = _of_text(content)
    heading = next((line for line in text.split("\n") if line.startswith("# ")), "#")
    return heading.lstrip("#").strip() or None, text


def _of_html(content: bytes) -> tuple[str | None, str]:
    from rockledge.distillation.html_text import html_text

    return html_text(content)


def _of_pdf(content: bytes) -> tuple[str | None, str]:
    from rockledge.distillation.pdf_text import pdf_text

    return pdf_text(content)


_MARKDOWN, _TEXT = (_of_markdown, 64 << 20), (_of_text, 64 << 20)
_HTML, _PDF = (_of_html, 32 << 20), (_of_pdf, 512 << 20)
_Reader = Callable[[bytes], tuple[str | None, str]]
# How a file is read, and the most bytes that it may have: more is not a document, and would take all memory.
_KINDS: dict[str, tuple[_Reader, int]] = {
    ".md": _MARKDOWN,
    ".markdown": _MARKDOWN,
    ".txt": _TEXT,
    ".text": _TEXT,
    ".html": _HTML,
    ".htm": _HTML,
    ".xhtml": _HTML,
    ".pdf": _PDF,
}
DOCUMENT_SUFFIXES = tuple(_KINDS)


def read_document(path: str | Path) -> DocumentText:
    """Title and text of a file, which may be empty. A file of another ending is read as text.

    Raises:
        UsageError: it cannot be read, is larger than documents are, or is not what its ending says.
        RockledgeError: the library for its kind is not installed.
    """
    path = Path(path)
    read, most = _KINDS.get(path.suffix.lower(), _TEXT)
    try:
        with open_regular(path) as file:
            content = file.read(most + 1)
        if len(content) > most:
            raise UsageError(
                f"{path} has more than {show_size(most)}, which is not a document; split it, or leave it out"
            )
        title, text = read(content)
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path} cannot be read as UTF-8 text ({error.reason}); give another file"
        ) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"{path} cannot be read ({reason[:1].lower()}{reason[1:]}); give another file"
        ) from error
    return DocumentText(title or path.stem, text)


def find_documents(folder: str | Path) -> FoundDocuments:
    """The documents in a folder and the folders below it. Links are followed, but no folder or file is taken
    twice, so loops end. Hidden files and folders, and files of other endings, are left out with a note; so is
    what cannot be opened.

    Raises:
        UsageError: it is not a folder that can be read.
    """
    folder = Path(folder)
    found: list[tuple[str, Path]] = []
    notes: list[str] = []
    others: Counter[str] = Counter()
    hidden, linked, seen = [], [], set()
    waiting = [("", folder)]
    while waiting:
        prefix, here = waiting.pop()
        try:
            entries = sorted(os.scandir(here), key=lambda entry: entry.name)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            if not prefix:
                raise UsageError(f"the folder {here} cannot be read ({reason}); give another") from error
            notes.append(f"{shown_name(prefix)} left out: it cannot be read ({reason}).")
            continue
        seen.add(os.path.realpath(here))
        for entry in entries:
            name, place = prefix + entry.name, Path(entry.path)
            if entry.name.startswith("."):
                hidden.append(name)
                continue
            real = os.path.realpath(place)
            if real in seen:
                linked.append(name)
            elif place.is_dir():
                seen.add(real)
                waiting.append((f"{name}/", place))
            elif place.suffix.lower() not in _KINDS:
                others[place.suffix.lower() or "without one"] += 1
            else:
                seen.add(real)
                found.append((name, place))
    if hidden:
        notes.append(f"{listed(sorted(hidden))} left out: hidden.")
    if linked:
        notes.append(f"{listed(sorted(linked))} left out: a link to what is there already.")
    if others:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(others.items())[:_LISTED])
        more = " and others" if len(others) > _LISTED else ""
        notes.append(f"Files of other endings left out: {kinds}{more}.")
    # By parts, so that the order is that of a walk through sorted folders.
    return FoundDocuments(tuple(sorted(found, key=lambda one: one[0].split("/"))), tuple(notes))


def listed(names: Sequence[str]) -> str:
    """Up to five names, and how many more there are."""
    named = ", ".join(map(shown_name, names[:_LISTED]))
    return named + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")


def shown_name(name: str) -> str:
    """A file name as text that can be printed and stored: what is not a character becomes `?`."""
    text = name.encode("utf-8", "replace").decode("utf-8")
    return "".join(c if c.isprintable() else "?" for c in text)

"""The texts: the English LinuxCNC documentation, to learn from and held out, and general prose.

linuxcnc-doc-en  Debian package, GPL-2+ and FDL; fetched when the example runs, never part of the project
general prose    lcet10, asyoulik and plrabn12 of the Canterbury corpus, public domain, in Brotli's source
                 package

A document is a run of four pages of a manual, and every twelfth one is held out, so that held-out pages
come from all chapters. Lists of contents, whose lines are dots, are left out.
"""

import json
import re
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pypdfium2

from bench.models import debian_package, pip_download

PAGES = 4
_EVERY, _FIRST = 12, 5
_SHORTEST = 500  # characters
_DOTS = 20  # dotted lines of a list of contents
# The manual as a whole, the manual pages, and the developers' manual; the other files repeat parts of these.
_MANUALS = ("LinuxCNC_Documentation.pdf", "LinuxCNC_Manual_Pages.pdf", "LinuxCNC_Developer.pdf")
_RUNNING_HEAD = re.compile(r"\ALinuxCNC V[^\n]*\n")
_PROSE = ("lcet10", "asyoulik", "plrabn12")
_PARAGRAPHS = 6000  # characters of a general document

LEARN, GENERAL, HELD_OUT, WATCHED = "learn.jsonl", "general.jsonl", "held_out.jsonl", "watched.jsonl"


def write_texts(folder: Path, watched: int) -> None:
    """Fetches the texts and writes them to `folder`, as JSON lines with `text`. So many of the held-out
    documents are measured while a student learns.

    Raises:
        UnavailableError: a package cannot be fetched.
    """
    with tempfile.TemporaryDirectory() as fetched:
        manuals = debian_package("linuxcnc-doc-en", Path(fetched)) / "usr/share/doc/linuxcnc"
        learn, held_out = split(run for name in _MANUALS for run in documents(manuals / name))
    _write(folder / LEARN, learn)
    _write(folder / HELD_OUT, held_out)
    _write(folder / WATCHED, held_out[:: max(1, len(held_out) // watched)][:watched])
    _write(folder / GENERAL, _prose())


def documents(manual: Path) -> list[str]:
    """Runs of four pages of a PDF file, without running heads."""
    pages = [_page(page.get_textpage().get_text_bounded()) for page in pypdfium2.PdfDocument(manual)]
    return ["\n".join(pages[first : first + PAGES]) for first in range(0, len(pages), PAGES)]


def split(runs: Iterable[str]) -> tuple[list[str], list[str]]:
    """(documents to learn from, held-out documents)."""
    kept = [run for run in runs if len(run) >= _SHORTEST and run.count(". . .") <= _DOTS]
    held_out = kept[_FIRST::_EVERY]
    apart = set(held_out)
    return [run for run in kept if run not in apart], held_out


def _page(text: str) -> str:
    return _RUNNING_HEAD.sub("", text.replace("\r", ""))


def _prose() -> list[str]:
    found = []
    with (
        tempfile.TemporaryDirectory() as folder,
        tarfile.open(pip_download("Brotli==1.2.1", Path(folder), binary=False)) as archive,
    ):
        for name in _PROSE:
            member = archive.extractfile(f"brotli-1.2.1/tests/testdata/{name}.txt")
            assert member is not None  # the version is pinned
            text = member.read().decode("latin-1").replace("\r", "")
            found += [text[at : at + _PARAGRAPHS] for at in range(0, len(text), _PARAGRAPHS)]
    return found


def _write(path: Path, texts: Iterable[str]) -> None:
    lines = [json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts]
    path.write_text("".join(lines), encoding="utf-8")

"""The text of a PDF's pages, by PDFium: with the headings that its outline names, without running titles and
the dotted lines of a table of contents."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rockledge.distillation.document_libraries import require_library

_LEAST_PAGES = 4  # from here on lines at the edge of a page can be told to repeat
_EDGE = 2  # lines at the top, and at the bottom
_DEEPEST = 6  # level of a heading
_DIGITS = re.compile(r"\d+|\b[ivxlc]+\b")
_NUMBER = re.compile(r"^((chapter|part|appendix) [a-z\d]+[.:]?|[\d.]*\d\.?|[a-z](\.\d+)+) (?=\S)")
_DOTTED = re.compile(r"(( \.){4,}|\.{5,})\s*[\divxlc]*$")
_HYPHENS = re.compile(r"(?<=[a-z])-\n(?=[a-z])")
_BREAKS = re.compile("[\x02\ufffe\xad]\n")  # PDFium's signs for a hyphen that ends a line
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f\ufffe\uffff]")


def pdf_text(content: bytes) -> tuple[str | None, str]:
    """(title, text) of a file. Lines are those of the pages; a page that cannot be read is left out, and
    scanned pages have no text.

    Raises:
        RockledgeError: pypdfium2 is not installed.
        ValueError: it is not a PDF, or it needs a password.
    """
    require_library("pypdfium2", "PDF")
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(content)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower():
            raise ValueError("it needs a password") from error
        raise ValueError("it is not a PDF that PDFium can read") from error
    try:
        title = " ".join(document.get_metadata_dict().get("Title", "").split())
        pages = [_lines(document, number) for number in range(len(document))]
        headings = _outline(document)
    finally:
        document.close()
    marked = [_with_headings(page, headings.get(i, ())) for i, page in enumerate(_without_edges(pages))]
    text = "\n\n".join(filter(None, map("\n".join, marked))).replace("\n\n\n", "\n\n")
    text = _CONTROLS.sub("", _HYPHENS.sub("", _BREAKS.sub("", text))).replace("\xa0", " ")
    return title or None, f"{text.strip()}\n" if text.strip() else ""


def _lines(document: Any, number: int) -> list[str]:
    import pypdfium2

    try:
        page = document[number]
        text: str = page.get_textpage().get_text_bounded(errors="replace")
    except pypdfium2.PdfiumError:
        return []
    lines = (line.rstrip() for line in text.replace("\r\n", "\n").split("\n"))
    return [line for line in lines if line and not _DOTTED.search(line)]


def _outline(document: Any) -> dict[int, list[tuple[str, int]]]:
    """{page: (title as `_bare` has it, level from 1)} of the entries of the outline."""
    import pypdfium2

    found: dict[int, list[tuple[str, int]]] = {}
    try:
        for entry in document.get_toc(max_depth=_DEEPEST):
            target = entry.get_dest()
            page = None if target is None else target.get_index()
            if page is not None and (title := _bare(entry.get_title())):
                found.setdefault(page, []).append((title, min(entry.level + 1, _DEEPEST)))
    except (pypdfium2.PdfiumError, UnicodeError):  # a broken outline: the text has no headings
        return {}
    return found


def _with_headings(page: Sequence[str], titles: Sequence[tuple[str, int]]) -> list[str]:
    """Lines of a page; those that are a title become headings, each entry of the outline once."""
    left, lines = list(titles), []
    for line in page:
        entry = next((one for one in left if one[0] == _bare(line)), None)
        if entry is None:
            lines.append(line)
        else:
            left.remove(entry)
            lines += ["", f"{'#' * entry[1]} {line}", ""]
    return lines


def _bare(title: str) -> str:
    """A title without its number."""
    plain = " ".join(title.replace("\0", "").split()).lower()
    return _NUMBER.sub("", plain)


def _without_edges(pages: Sequence[list[str]]) -> list[list[str]]:
    """The pages without running titles and page numbers: lines at an edge that are alike, but for numbers, on
    more than half of all pages."""
    if len(pages) < _LEAST_PAGES:
        return list(pages)
    counts = Counter(like for page in pages for like in {_like(page[i]) for i in _edges(page)})
    common = {like for like, count in counts.items() if count > len(pages) / 2}
    return [
        [line for i, line in enumerate(page) if i not in _edges(page) or _like(line) not in common]
        for page in pages
    ]


def _edges(page: Sequence[str]) -> set[int]:
    return {i for i in range(len(page)) if i < _EDGE or i >= len(page) - _EDGE}


def _like(line: str) -> str:
    return _DIGITS.sub("0", " ".join(line.split()))

"""The main text of an HTML page: headings, paragraphs, lists, tables and code, not what surrounds them."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rockledge.distillation.document_libraries import require_library

if TYPE_CHECKING:
    from bs4 import BeautifulSoup, Tag

_NOT_TEXT = (
    *("script", "style", "noscript", "template", "nav", "footer", "aside", "form", "button", "select"),
    *("svg", "iframe", "object", "canvas", "audio", "video", "dialog", "head", "annotation"),
)
# What surrounds a text, by the names that generators of documentation give it (Sphinx, AsciiDoc, Doxygen).
_AROUND = frozenset(
    (
        *("toc", "tableofcontents", "nav", "navbar", "navigation", "sidebar", "sphinxsidebar"),
        *("breadcrumb", "breadcrumbs", "footer", "navheader", "navfooter", "navpath", "side-nav"),
        *("wy-nav-side", "rst-footer-buttons", "edit-this-page", "skip-link", "cookie-banner"),
    )
)
_HOLDS_AROUND = ("div", "ul", "ol", "section", "table", "p")
_AROUND_ROLES = ("navigation", "banner", "contentinfo", "search", "complementary", "menu")
_HEADINGS = {f"h{level}": "#" * level for level in range(1, 7)}
_BLOCKS = frozenset(
    (
        *("address", "article", "blockquote", "body", "caption", "center", "dd", "details", "div", "dl"),
        *("dt", "fieldset", "figcaption", "figure", "header", "hr", "html", "legend", "li", "main", "ol"),
        *("p", "section", "summary", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "ul"),
        *_HEADINGS,
    )
)
_IN_LINES = ("table", "pre", "ul", "ol", "dl", "blockquote", *_HEADINGS)  # not in a row that is one line
_PERMALINKS = ("¶", "#", "§", "🔗", "\uf0c1")


def html_text(content: bytes) -> tuple[str | None, str]:
    """(title, text) of a page; its encoding is that of its byte order mark or `meta`, else UTF-8.

    Headings become lines that begin with `#`, items of lists begin with `-` or their number, code stands
    between lines of three backticks, and a row of a table is one line with ` | ` between its cells.

    Raises:
        RockledgeError: Beautiful Soup is not installed.
        ValueError: this is not HTML that can be parsed.
    """
    require_library("bs4", "HTML")
    from bs4 import BeautifulSoup
    from bs4.exceptions import ParserRejectedMarkup

    if b"\0" in content[:1024] and content[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        raise ValueError("it holds zero bytes, as binary files do")
    try:
        # A parser by name, so that what else is installed changes nothing.
        page = BeautifulSoup(content, "html.parser", on_duplicate_attribute="ignore")
        title = " ".join(page.title.get_text().split()) if page.title else ""
        _drop_around(page)
        heading = page.find("h1")
        title = " ".join(heading.get_text(" ").split()) if heading else title
        main = page.find("main") or page.find(True, {"role": "main"}) or page.body or page
        return title or None, _text(main)
    except (ParserRejectedMarkup, RecursionError, AssertionError) as error:
        raise ValueError("it is not HTML that can be parsed") from error


def _drop_around(page: "BeautifulSoup") -> None:
    """Removes what is no text. Tags are walked with a list, as pages may be nested without end."""
    from bs4 import Tag

    waiting: list[Tag] = [page]
    while waiting:
        for child in list(waiting.pop().contents):
            if not isinstance(child, Tag):
                continue
            if child.name in _NOT_TEXT or _is_around(child):
                child.extract()
            else:
                waiting.append(child)


def _is_around(tag: "Tag") -> bool:
    if tag.name in ("html", "body", "main", "article"):
        return False
    names = {str(name).lower() for name in (*tag.get_attribute_list("class"), tag.get("id")) if name}
    if tag.name == "a" and ("headerlink" in names or tag.get_text().strip() in _PERMALINKS):
        return True
    if tag.name == "header":  # of the site, or of the text
        return tag.find("h1") is None and tag.find_parent(("main", "article")) is None
    return (
        tag.has_attr("hidden")
        or tag.get("aria-hidden") == "true"
        or tag.get("role") in _AROUND_ROLES
        or (tag.name in _HOLDS_AROUND and bool(names & _AROUND))
    )


def _text(main: "Tag") -> str:
    """Lines of the tags below `main`."""
    lines = _Lines()
    for tag, text in _events(main):
        if tag is None:
            lines.add(text)
        elif text == "enter":
            lines.enter(tag)
        else:
            lines.leave(tag)
    return lines.text()


def _events(main: "Tag") -> Iterator[tuple[Any, str]]:
    """(None, its text) of strings, (tag, "enter") and (tag, "leave"); what is taken whole is not entered."""
    from bs4.element import NavigableString, PreformattedString

    waiting: list[tuple[Any, bool]] = [(main, False)]
    while waiting:
        node, entered = waiting.pop()
        if entered:
            yield node, "leave"
        elif isinstance(node, PreformattedString):  # comments and declarations
            continue
        elif isinstance(node, NavigableString):
            yield None, str(node)
        else:
            yield node, "enter"
            waiting.append((node, True))
            if node.name != "pre" and not _is_row(node):
                waiting += [(child, False) for child in reversed(node.contents)]


def _is_row(tag: "Tag") -> bool:
    return tag.name == "tr" and tag.find(_IN_LINES) is None


class _Lines:
    """What has been gathered: finished lines, and the one that is being filled."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._line: list[str] = []
        self._mark = ""
        self._lists: list[int | None] = []  # the number of the next item, None in a list without numbers

    def add(self, text: str) -> None:
        self._line.append(text)

    def enter(self, tag: "Tag") -> None:
        if tag.name == "br":
            self._finish()
        elif tag.name == "pre":
            self._finish()
            code = tag.get_text().replace("\r\n", "\n").strip("\n")
            if code.strip():
                self._lines += ["", "```", *(line.rstrip() for line in code.split("\n")), "```", ""]
        elif tag.name == "tr" and _is_row(tag):
            self._finish()
            cells = [_joined(cell.get_text(" ")) for cell in tag.find_all(("td", "th"))]
            if any(cells):
                self._lines.append(" | ".join(cells))
        elif tag.name in _BLOCKS:
            self._finish()
            self._begin(tag)

    def _begin(self, tag: "Tag") -> None:
        if tag.name in _HEADINGS:
            self._mark = f"{_HEADINGS[tag.name]} "
        elif tag.name in ("ul", "ol"):
            self._lists.append(1 if tag.name == "ol" else None)
        elif tag.name == "li":
            number = self._lists[-1] if self._lists else None
            self._mark = "  " * (len(self._lists) - 1) + ("- " if number is None else f"{number}. ")
            if number is not None:
                self._lists[-1] = number + 1
        if tag.name not in ("li", "tr", "td", "th", "dd", "thead", "tbody"):
            in_item = self._mark and tag.name == "p"
            self._lines += [] if in_item else [""]

    def leave(self, tag: "Tag") -> None:
        if tag.name in _BLOCKS:
            self._finish()
        if tag.name in ("ul", "ol") and self._lists:
            self._lists.pop()
        if tag.name in _HEADINGS or tag.name in ("p", "ul", "ol", "dl", "table"):
            self._lines.append("")
        if tag.name in _HEADINGS or tag.name == "li":
            self._mark = ""

    def _finish(self) -> None:
        text = _joined("".join(self._line))
        self._line = []
        if text:
            self._lines.append(self._mark + text)
            self._mark = ""

    def text(self) -> str:
        self._finish()
        text = re.sub(r"\n{3,}", "\n\n", "\n".join(self._lines)).strip("\n")
        return f"{text}\n" if text else ""


def _joined(text: str) -> str:
    return " ".join(text.replace("\xad", "").split())

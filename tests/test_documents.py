"""Tables of figures in the documents say which command printed them, and when or at which commit."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Figures about the NPU have tests of their own: tests/npu, tests/npu_lab and tests/runtime/offload.
PAGES = [ROOT / "README.md", *sorted(p for p in (ROOT / "docs").glob("*.md") if not p.name.startswith("npu"))]
COMMAND = re.compile(r"python\s+-m\s+bench|make [a-z]|rockledge [a-z]|pytest tests")
WHEN = re.compile(r"\b20\d\d-\d\d-\d\d\b|\b[0-9a-f]{7}\b")
# Of a row's cells, the first apart; a table of choices or of layouts has few.
NUMBER = re.compile(r"\**[-+~]?\d[\d.,]*( ?(%|M|s|ms|MB|GB|tok/s))?\**( / [\d.,]+)*( \(.*\))?")


def sections(page: Path) -> Iterator[tuple[str, str]]:
    """Heading and text, the heading included, of every part of a page between two headings."""
    fenced = re.compile(r"(?s)```.*?```")
    text = fenced.sub(lambda code: code[0].replace("\n#", "\n "), page.read_text(encoding="utf-8"))
    for part in re.split(r"(?m)^(?=#{1,4} )", text):
        yield part.split("\n", 1)[0], part


def figures(section: str) -> int:
    """Cells of its tables that are a number, the first column apart."""
    rows = re.findall(r"(?m)^\s*\|(.*)\|\s*$", section)
    cells = [cell.strip() for row in rows for cell in row.split("|")[1:]]
    return sum(NUMBER.fullmatch(cell) is not None for cell in cells)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_figures_name_their_command_and_their_day(page: Path) -> None:
    missing = [
        heading
        for heading, text in sections(page)
        if figures(text) > 5 and not (COMMAND.search(text) and WHEN.search(text))
    ]
    assert missing == []

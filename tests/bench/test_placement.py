"""The bench of placements: its lines are there, and docs/npu.md quotes what they say."""

from pathlib import Path

import pytest

from bench import placement

PAGE = Path(__file__).parents[2] / "docs" / "npu.md"


@pytest.fixture(scope="module")
def printed() -> list[str]:
    lines: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builtins.print", lambda text: lines.extend(text.splitlines()))
        assert placement.main([]) == 0
    return lines


def quoted(heading: str) -> list[list[str]]:
    """The cells of the first table after a heading of a section's own table."""
    _, _, section = PAGE.read_text(encoding="utf-8").partition("### What runs where")
    lines = section.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith(heading))
    rows = []
    for line in lines[first + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.replace("\\|", "/").strip("|").split("|")])
    return rows


def words(line: str) -> list[str]:
    return line.replace("|", "/").replace(",", "").split()


def test_the_table_of_operations_is_what_is_printed(printed: list[str]) -> None:
    start = next(number for number, line in enumerate(printed) if line.startswith("8b: steps of"))
    for cells in quoted("| operation"):
        cells[6] = cells[6].replace(" ", "")
        wanted = words(" ".join(cells))
        found = next(line for line in printed[start + 2 :] if f" {cells[0]} " in line.replace("|", "/"))
        assert [word for word in words(found) if word != "512"] == wanted


@pytest.mark.parametrize("heading, title", [("| model | tokens | CPU", "attention, s")])
def test_attention_is_what_is_printed(printed: list[str], heading: str, title: str) -> None:
    start = next(number for number, line in enumerate(printed) if line.startswith(title))
    assert [words(line) for line in printed[start + 1 : start + 10]] == quoted(heading)


def test_chunks_in_flight_are_what_is_printed(printed: list[str]) -> None:
    start = next(number for number, line in enumerate(printed) if line.startswith("two chunks in flight"))
    found = [words(line)[:9] for line in printed[start + 2 : start + 14]]
    assert all(row in found for row in quoted("| model | tokens | tok/s today"))


def test_planes_are_what_is_printed(printed: list[str]) -> None:
    start = next(number for number, line in enumerate(printed) if line.startswith("activations of a step"))
    found = [words(line) for line in printed[start + 1 : start + 7]]
    for row, cells in zip(found, quoted("| product"), strict=True):
        cells[5] = cells[5].replace(" ", "")
        assert row[-len(words(" ".join(cells[1:]))) :] == words(" ".join(cells[1:]))


def test_goals_are_judged(printed: list[str]) -> None:
    goals = [line for line in printed if line.startswith("goal, 8b, 512")]
    assert [line.endswith("not met") for line in goals] == [True, True]
    _, _, long = "\n".join(printed).partition("8B, 8,192 tokens")
    assert [int(line.split()[-2]) for line in long.splitlines()[1:4]] == [77, 84, 119]


def test_sram_holds_next_to_nothing(printed: list[str]) -> None:
    line = next(line for line in printed if line.startswith("8b") and line.rstrip().endswith("0.05"))
    assert float(words(line)[2]) > 978_944 / 1e6

"""What the documents tell a user to type exists: commands and flags, make targets, modules, extras, files."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import tomllib

from rockledge.cli.main import COMMANDS
from rockledge.cli.parser import build_parser

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
# The log tells what was.
USED = [page for page in PAGES if page.name != "log.md"]
TARGETS = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text()))
EXTRAS = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])


def blocks(text: str) -> Iterator[str]:
    """Lines of the fenced blocks without a language, and indented ones; joined where one goes on."""
    fenced = re.findall(r"(?ms)^```\n(.*?)^```", text)
    indented = re.findall(r"(?m)^ {4}(\S.*)$", re.sub(r"(?ms)^```.*?^```", "", text))
    for line in [*"\n".join(fenced).replace("\\\n", "").splitlines(), *indented]:
        yield line.partition("  #")[0].strip()


def typed(name: str) -> list[str]:
    """All command lines of the documents that begin with `name`."""
    found = []
    for page in USED:
        for line in blocks(page.read_text(encoding="utf-8")):
            for part in re.split(r" && ", line):
                words = part.removesuffix(" &").removeprefix("sudo ")
                if re.match(rf"(\.venv/bin/)?{name} (?!COMMAND)", words):
                    found.append(words.removeprefix(".venv/bin/"))
    return sorted(set(found))


@pytest.mark.parametrize("line", typed("rockledge"))
def test_a_command_line_is_one_that_the_program_takes(line: str) -> None:
    words = re.sub(r"\[[^]]*\]", "", line)
    assert build_parser(COMMANDS).parse_args(shlex.split(words)[1:])


def test_make_targets_exist() -> None:
    named = {
        target
        for page in USED
        for target in re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert "wheel" in named
    assert named <= TARGETS


def test_benches_exist() -> None:
    named = {
        module
        for page in USED
        for module in re.findall(r"python -m (bench[.\w]+)", page.read_text(encoding="utf-8"))
    }
    places = [ROOT / module.replace(".", "/") for module in named]
    assert len(places) > 10
    assert [place for place in places if not (place.with_suffix(".py").exists() or place.is_dir())] == []


def test_what_pip_is_to_install_is_there() -> None:
    lines = typed("pip install")
    assert any("serve" in line for line in lines)
    for line in lines:
        for extra in re.findall(r"'\.\[([a-z,-]+)\]'", line):
            assert set(extra.split(",")) <= EXTRAS, line
        assert "rockledge[" not in line, "it is not on PyPI"


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"(?m)^#+ (.*)$", re.sub(r"(?ms)^```.*?^```", "", page.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        place, _, anchor = target.partition("#")
        found = (page.parent / place).resolve() if place else page
        if not found.exists() or (anchor and found.suffix == ".md" and anchor not in anchors(found)):
            wrong.append(target)
    assert wrong == []

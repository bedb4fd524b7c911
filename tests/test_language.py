"""The language rules of CONTRIBUTING.md, as far as a program can check them: errors and documents."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LINE = 140
CELL = 120  # characters: about a sentence
# Words with a capital letter that begin a sentence without being a name in the code or an acronym.
NAMES = {"Hugging", "Llama", "Python", "Qwen", "Rockledge"}
BANNED = {
    "'is no X' (write 'is not a X')": re.compile(
        r"(?<!there )\b(is|are) no (?!longer|more|less)\w", re.IGNORECASE
    ),
    "'1 threads'": re.compile(r"\b1 threads\b"),
    "'behind N tokens' (write 'after N tokens')": re.compile(r"\bbehind( [\w,.]+){0,3} tokens\b"),
    "'tokens behind' (write 'tokens before', or 'after')": re.compile(r"\btokens behind\b"),
}


def tracked(pattern: str) -> list[str]:
    """Paths of the repository that match, in all folders; the test needs git for them."""
    listed = subprocess.run(
        ["git", "ls-files", pattern], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode != 0:
        pytest.skip("no git repository here")
    return listed.stdout.split()


def sentence(node: ast.expr) -> str | None:
    """The text of a string expression with {} for every value; None for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(sentence(part) or "{}" for part in node.values)
    return None


def raised(path: str, source: str) -> Iterator[tuple[str, str]]:
    """(place, sentence) of every `raise SomethingError("...")`; a class that is given is called `error`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
            kind = ast.unparse(node.exc.func).rpartition(".")[2]
            text = sentence(node.exc.args[0])
            if kind.lower().endswith("error") and text is not None:
                yield f"{path}:{node.lineno}", text


def objection(text: str) -> str | None:
    """What is wrong with an error sentence, None when nothing is."""
    first = text.split(maxsplit=1)[0] if text.strip() else ""
    word = first.strip("\"'`(,:;.")
    named = word in NAMES or word.upper() == word or "_" in word or not word.isalpha()
    article = word == "A" and not re.match(r"A (is|of|\{)", text)
    if word[:1].isupper() and (article or not named):
        return "starts with a capital letter"
    if text.rstrip().endswith(".") and not text.rstrip().endswith("..."):
        return "ends with a full stop"
    if text.endswith("is damaged"):
        return "does not say what to do about the damage"
    return next((name for name, pattern in BANNED.items() if pattern.search(text)), None)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("The file is damaged", "capital"),
        ("A file is damaged", "capital"),
        ("A is int8, expected int16", None),
        ("the file is damaged.", "full stop"),
        ("a tensor overlaps b; the file is damaged", "what to do"),
        ("a tensor overlaps b; the file is damaged, fetch it again", None),
        ("x is no GGUF file", "is no X"),
        ("1 threads were given", "1 threads"),
        ("4 tok/s behind 8,000 tokens", "behind N tokens"),
        ("there is no NPU here; boot another kernel", None),
        ("GGUF version 1, expected 2 or 3", None),
        ("{} is no longer there", None),
        ("DPU_DATA_FORMAT is 7, expected 3", None),
    ],
)
def test_the_rules_see_what_they_are_for(text: str, wrong: str | None) -> None:
    found = objection(text)
    assert (found is None) if wrong is None else (found is not None and wrong in found)


def test_errors_of_a_class_that_is_given_are_seen() -> None:
    source = 'raise error(f"{path} is short") from cause\nraise errors.UsageError("no")\nraise wrong\n'
    assert [text for _, text in raised("a.py", source)] == ["{} is short", "no"]


def test_error_sentences_have_one_form() -> None:
    sentences = [
        found
        for path in [*tracked("src/rockledge/*.py"), *tracked("npu_lab/src/*.py")]
        for found in raised(path, (ROOT / path).read_text(encoding="utf-8"))
    ]
    assert len(sentences) > 50
    wrong = [f"{place}: {text!r} {found}" for place, text in sentences if (found := objection(text))]
    assert not wrong, "\n".join(wrong)


def documents() -> list[str]:
    """The tracked Markdown files that are revised."""
    return tracked("*.md")


def test_documents_have_short_lines_and_no_banned_phrases() -> None:
    wrong = []
    for path in documents():
        for number, line in enumerate((ROOT / path).read_text(encoding="utf-8").splitlines(), 1):
            if len(line) >= LINE:
                wrong.append(f"{path}:{number}: {len(line)} characters")
            wrong += [f"{path}:{number}: {name}" for name, pattern in BANNED.items() if pattern.search(line)]
    assert documents()
    assert not wrong, "\n".join(wrong)


def test_no_table_cell_holds_a_paragraph() -> None:
    wrong = [
        f"{path}:{number}: a cell of {len(cell.strip())} characters"
        for path in documents()
        for number, line in enumerate((ROOT / path).read_text(encoding="utf-8").splitlines(), 1)
        if line.startswith("|")
        for cell in re.split(r"(?<!\\)\|", line)
        if len(cell.strip()) > CELL
    ]
    assert not wrong, "\n".join(wrong)

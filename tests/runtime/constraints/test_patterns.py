"""Patterns keep their meaning in Rust's signs: every character that fits, fits in Python too."""

import json
import re

import pytest

from rockledge.errors import UsageError
from rockledge.runtime.constraints.constraint import (
    Constraint,
    _bytes_as_tokens,
    check_constraint,
    compile_constraint,
)
from rockledge.runtime.constraints.patterns import portable_pattern

CHARACTERS = [
    *map(chr, range(0x7F)),
    *"\x85\xa0\xb2\xe9\u0301\u01a9\u0660\u0903\u09f4\u200d\u2028\u2160\u3000\u4e00\uac00\ufeff\uff11",
    *"\U0001d7d8\U0001f600\U000e0100",
]


def fitting(pattern: str) -> set[str]:
    """The characters that fit a schema's pattern."""
    schema = json.dumps({"type": "string", "pattern": f"^{pattern}$"})
    matcher = compile_constraint(Constraint("json_schema", schema), _bytes_as_tokens)
    found = set()
    for character in CHARACTERS:
        text, one = json.dumps(character, ensure_ascii=False).encode(), matcher.deep_copy()
        if one.try_consume_tokens(list(text)) == len(text) and one.is_accepting():
            found.add(character)
    return found


@pytest.mark.parametrize(
    "pattern",
    [
        *(r"\w", r"\W", r"\d", r"\D", r"\s", r"\S", ".", "[^a]", r"[\w-]", r"[^\w]", r"[^\W]", r"[^\d]"),
        *(r"[^\D]", r"[^\s]", r"[^\S]", r"[\W\d]", r"[\s\S]", r"[\w\W]", r"[a-z\-\d]", r"[^[\\]", r"[\]\[]"),
        *(
            "[a[b]",
            "[a&&b]",
            "[~~a]",
            "[&-]",
            "[!-~]",
            "[-a]",
            "[a-]",
            r"[\d.-]",
            r"[\d-]",
            "a|[b]",
            r"\[",
            r"\(",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:Possible set:FutureWarning")
def test_what_fits_fits_in_python(pattern: str) -> None:
    found = fitting(pattern)
    right = {character for character in CHARACTERS if re.fullmatch(pattern, character)}
    assert found <= right
    # What is left out is what ECMA-262 does not mean, or hard to say; nothing of ASCII that can be shown.
    assert {c for c in right - found if "\x20" <= c < "\x7f"} == set()


def test_letters_beyond_ascii_are_no_w_but_in_both_together() -> None:
    assert "é" not in fitting(r"\w")  # as in ECMA-262
    assert {"é", "\u4e00"} <= fitting(r"[\w\W]")
    assert fitting(r"[\s\S]") == set(CHARACTERS)
    assert fitting("[^a]") == set(CHARACTERS) - {"a", "\0"}


@pytest.mark.parametrize(
    "pattern, named",
    [
        ("^[[:alpha:]]$", None),  # a set and a bracket, as ECMA-262 reads it
        *((p, p) for p in (r"\A", r"\z", r"\a", "(?x)", r"\x{", r"\pL", "[]", "[^]")),
        *((f"[{p}-9]", p) for p in (r"\x00", r"\u0000")),
        (r"\P{L}", r"\P{"),
        ("[a--z]", "--"),
    ],
)
def test_signs_that_only_rust_has_are_refused_by_name(pattern: str, named: str | None) -> None:
    if named is None:
        assert portable_pattern(pattern) == r"^[\[:alpha:]]$"
        return
    schema = {"type": "object", "patternProperties": {f"{pattern}a41}}]": {}}}
    with pytest.raises(UsageError) as caught:
        check_constraint(Constraint("json_schema", json.dumps(schema)))
    assert repr(named)[1:-1] in str(caught.value)


@pytest.mark.parametrize(
    "pattern", [r"^\(?x:\)", "(?:a|b)+", "(?i)abc", "(?<year>[0-9]{4})", r"\\A", "a$|^b", "\\"]
)
def test_what_both_have_stays_as_it_is(pattern: str) -> None:
    assert portable_pattern(pattern) == pattern

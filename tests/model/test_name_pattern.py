"""Patterns for names of modules: Python's `re` is the reference, and no pattern takes long."""

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rockledge.errors import UsageError
from rockledge.model.name_pattern import NamePattern

ATOMS = ("a", "b", ".", r"\.", "[ab]", "[^a]", r"\d", r"\w", "[a-c0-9.]", "[]a]", "^", "$", "1", "a{", "[^]]")
NAMES = st.text("ab.1c]", max_size=7)


def grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    group = inner.map(lambda one: f"(?:{one})") | inner.map(lambda one: f"({one})")
    signs = st.sampled_from(("*", "+", "?", "{2}", "{1,2}", "{1,}", "*?", "??", "{0}"))
    several = st.lists(inner, max_size=3)
    return st.one_of(
        st.builds("{}{}".format, group, signs), several.map("".join), several.map("|".join), group
    )


PATTERNS = st.recursive(st.sampled_from(ATOMS), grown, max_leaves=8)


@settings(max_examples=300)
@given(PATTERNS, st.lists(NAMES, min_size=3, max_size=6))
def test_names_match_as_by_re(pattern: str, names: list[str]) -> None:
    try:
        expected = re.compile(pattern)
    except re.error:
        with pytest.raises(re.error):
            NamePattern(pattern)
        return
    ours = NamePattern(pattern)
    for name in names:
        assert ours.matches(name) == (expected.fullmatch(name) is not None), name


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+b", "(a*)*b", "(a|a)*b", "(a|aa)+b", "((a?){20}){20}b", "a*" * 60 + "b", "(a|a)" * 90 + "b",
        "(.*a){25}b", "(((a*)+)*)+b", "(?:a?){99}a{99}b",
    ],
)  # fmt: skip
def test_nothing_takes_long(pattern: str) -> None:
    begun = time.process_time()
    assert not NamePattern(pattern).matches("a" * 200)
    assert time.process_time() - begun < 2


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        (r"(a)\1", "escape"),
        ("(?=a)a", r"\(\?="),
        ("a{,2}", r"\{,2\}"),
        ("((a{99}){99}){99}", "repetition"),
    ],
)
def test_what_is_not_known_is_named(pattern: str, says: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match=says):
        NamePattern(pattern)
    assert capfd.readouterr() == ("", "")

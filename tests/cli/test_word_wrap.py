"""Streamed text in lines: like textwrap where that applies, and never wider than the window."""

import textwrap

from hypothesis import given
from hypothesis import strategies as st
from wcwidth import wcswidth

from rockledge.cli.word_wrap import WordWrap

WORDS = st.lists(st.text("abcdef-é", min_size=1, max_size=30), min_size=1, max_size=30)
ANY = st.text(st.sampled_from("ab \n\t寒い。「」、ー가나é́\u200d\ufe0f❤👩👧\x1b\r"), max_size=80)
COLUMNS = st.integers(3, 40)


def wrapped(pieces: list[str], columns: int) -> str:
    wrap = WordWrap(lambda: columns)
    return "".join(map(wrap.feed, pieces)) + wrap.end()


@given(WORDS, COLUMNS)
def test_words_are_wrapped_as_textwrap_does(words: list[str], columns: int) -> None:
    whole = [word for word in words if len(word) < columns] or ["a"]
    expected = textwrap.wrap(" ".join(whole), columns - 1, break_on_hyphens=False, break_long_words=False)
    assert wrapped([" ".join(whole)], columns).split("\n") == expected


@given(ANY, COLUMNS, st.integers(1, 5))
def test_pieces_change_nothing_and_nothing_is_lost_or_too_wide(text: str, columns: int, size: int) -> None:
    shown = wrapped([text[i : i + size] for i in range(0, len(text), size)], columns)
    assert shown == wrapped([text], columns)
    assert "".join(shown.split()) == "".join(text.replace("\r", "").replace("\x1b", "\ufffd").split())
    assert "\x1b" not in shown
    for line in shown.split("\n"):
        assert wcswidth(line) < columns or ("\ufe0f" in line and wcswidth(line) == columns)


def test_words_arrive_as_soon_as_they_have_ended() -> None:
    wrap = WordWrap(lambda: 20)
    shown = [wrap.feed(piece) for piece in ("def f", "oo", "():\n", "    ret", "urn", " 1\n", "灯", "台")]
    assert shown == ["def", "", " foo():\n", "", "", "    return 1\n", "", "灯"]
    assert wrap.end() == "台"


def test_a_window_that_changes_its_size_is_asked_again() -> None:
    columns = 80
    wrap = WordWrap(lambda: columns)
    shown = wrap.feed("one two three ")
    columns = 8
    assert shown + wrap.feed("four five ") + wrap.end() == "one two three\nfour\nfive"


def test_a_word_wider_than_the_window_fills_its_lines() -> None:
    assert wrapped(["see ", "abcdefghij", "klm end"], 6) == "see\nabcde\nfghij\nklm\nend"
    assert wrapped(["    deep"], 6).split("\n") == [" deep"]

"""Passages: nothing is lost or said twice, none is too long, and each knows its headings."""

import re

from hypothesis import given
from hypothesis import strategies as st

from rockledge.distillation.documents import Document
from rockledge.distillation.question_answer.passages import passages

MANUAL = """# Spindle

Intro words that say a little about how the spindle of a machine is set up and started again.

## Speed

The speed is set by S words, in revolutions per minute, and it holds until another S word comes.

```
M3 S1200

M5
```

## Limits

A drive has a limit that it never passes, and the control refuses words that ask for more than that.
"""


def _words(text: str) -> int:
    return len(text.split())


def test_headings_begin_passages_and_code_stays_whole() -> None:
    found = passages(3, Document("m", MANUAL, title="Manual"), _words, 34)
    assert [one.text.split("\n")[0] for one in found] == ["# Spindle", "## Speed", "## Limits"]
    assert [one.heading for one in found] == ["Manual", "Manual > Spindle", "Manual > Spindle > Speed"]
    assert "```\nM3 S1200\n\nM5\n```" in found[1].text
    assert all(one.document == 3 for one in found)
    whole = passages(0, Document("m", MANUAL), _words, 200)
    assert [one.text for one in whole] == [re.sub(r"\n+$", "", MANUAL)]


def test_texts_of_a_few_words_are_none() -> None:
    assert passages(0, Document("m", "# Title\n\nOnly a few words."), _words, 100) == []


@given(st.text("ab .\n#`", max_size=1500), st.integers(20, 60))
def test_all_words_are_there_once_in_order_and_none_is_too_long(text: str, most: int) -> None:
    count = len  # characters as tokens: any cut may be needed
    found = passages(0, Document("m", text), count, most)
    for one in found:
        assert count(one.text) <= most
    rest = iter(c for c in text if c in "ab")
    assert all(any(c == other for other in rest) for one in found for c in one.text if c in "ab")


@given(st.lists(st.text("abcdefg", min_size=1, max_size=8), min_size=40, max_size=200))
def test_nothing_of_a_long_text_is_lost(words: list[str]) -> None:
    found = passages(0, Document("m", " ".join(words)), _words, 80)
    there = " ".join(one.text for one in found).split()
    assert there == words[: len(there)]
    assert len(words) - len(there) < 16

"""The words for a divergence are those of the document."""

import re
from math import inf
from pathlib import Path

import pytest

from rockledge.eval.kl_words import WORDS, kl_in_words

PAGE = Path(__file__).parents[2] / "docs" / "precision.md"


def test_the_document_has_the_same_ranges_and_words() -> None:
    rows = re.findall(r"^\| (?:below |above )?([\d. to]+) \| (.*) \|$", PAGE.read_text(), re.MULTILINE)
    found = [(span.split(" to ")[-1], words) for span, words in rows if words in dict(map(reversed, WORDS))]
    assert [words for _, words in found] == [words for _, words in WORDS]
    assert [float(below) for below, _ in found[:-1]] == [below for below, _ in WORDS[:-1]]


@pytest.mark.parametrize(
    "nats, words",
    [(0.0, "float model"), (0.03, "good"), (0.19, "begin to slip"), (6.3, "different"), (inf, "diff")],
)
def test_words_of_a_divergence(nats: float, words: str) -> None:
    assert words in kl_in_words(nats)

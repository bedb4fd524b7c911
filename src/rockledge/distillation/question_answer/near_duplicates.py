"""Questions that were asked before, in the same words or almost.

Two sets of words with a Jaccard similarity of at least t share one of the first n - ceil(t * n) + 1 words of
each, in any order that is the same for all: so only those are looked up (prefix filtering, Chaudhuri et al.,
"A Primitive Operator for Similarity Joins in Data Cleaning", 2006).
"""

import math
from collections import defaultdict
from zlib import crc32

from rockledge.distillation.question_answer.words import content_words, numbers

SAME = "question asked before"
ALIKE = "question asked before in almost the same words"

_SIMILAR = 0.8


class AskedQuestions:
    """The questions so far."""

    def __init__(self) -> None:
        self._exact: set[str] = set()
        self._sets: list[tuple[set[str], set[str]]] = []
        self._by_word: dict[str, list[int]] = defaultdict(list)

    def refused(self, question: str) -> str | None:
        """Why it is not new; None where it is, and then it is one of them."""
        exact = " ".join("".join(c if c.isalnum() else " " for c in question.casefold()).split())
        if exact in self._exact:
            return SAME
        words, figures = content_words(question), numbers(question)
        prefix = _ordered(words)[: len(words) - math.ceil(_SIMILAR * len(words)) + 1]
        for number in {found for word in prefix for found in self._by_word[word]}:
            others, other_figures = self._sets[number]
            # Questions for two values of one thing differ in a number alone.
            if (
                figures == other_figures
                and _codes(words) == _codes(others)
                and len(words & others) >= _SIMILAR * len(words | others)
            ):
                return ALIKE
        self._exact.add(exact)
        for word in prefix:
            self._by_word[word].append(len(self._sets))
        self._sets.append((words, figures))
        return None


def _codes(words: set[str]) -> set[str]:
    return {word for word in words if any(c.isdigit() for c in word)}


def _ordered(words: set[str]) -> list[str]:
    """Long words first, which fewer questions have."""
    return sorted(words, key=lambda word: (-len(word), crc32(word.encode()), word))

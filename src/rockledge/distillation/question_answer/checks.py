"""Which pairs are worth learning: the answer comes from the passage, and the question stands alone."""

import re

from rockledge.distillation.question_answer.parsing import Pair
from rockledge.distillation.question_answer.words import content_words, numbers

UNGROUNDED = "answer not from the passage"
STRANGE = "question not about the passage"
COPY = "answer repeats the question"
EMPTY = "question or answer says nothing"
DEPENDS = "question speaks of the passage"

_GROUNDED = 0.6  # of an answer's words that must be in the passage: the rest joins them to a sentence
_LONGEST_QUESTION = 400  # characters; longer ones copy the passage
_OF_PASSAGE = re.compile(
    r"\b(?:the|this|that|given|above|following|provided) (?:\w+ )?"
    r"(?:passage|text|excerpt|paragraph|article|snippet)\b"
    r"|\baccording to (?:the|this) (?:\w+ )?(?:document|section|author|context)\b"
    r"|\b(?:mentioned|described|discussed|shown|listed) (?:above|below|here)\b",
    re.IGNORECASE,
)


def refused(pair: Pair, heading: str, passage: str) -> str | None:
    """Why a pair is not taken; None where it is."""
    asked, said = content_words(pair.question), content_words(pair.answer)
    if _template(pair.question) or _template(pair.answer) or not asked or not said:
        return EMPTY
    if len(pair.question) > _LONGEST_QUESTION:
        return EMPTY
    if _OF_PASSAGE.search(pair.question):
        return DEPENDS
    if said <= asked and numbers(pair.answer) <= numbers(pair.question):
        return COPY
    there = content_words(f"{heading}\n{passage}")
    if not asked & there:
        return STRANGE
    known = numbers(f"{heading} {pair.question}") | numbers(passage)
    if len(said & there) < _GROUNDED * len(said) or not numbers(pair.answer) <= known:
        return UNGROUNDED
    return None


def _template(text: str) -> bool:
    """Whether it is the form that was to be filled in, or has no letter at all."""
    return "..." in text[:4] or re.fullmatch(r"[\W\d_]*|<.*>|\[.*\]", text) is not None

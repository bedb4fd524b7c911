"""Texts as sets of words that carry meaning, to see what two of them share, in any language."""

import re

_WORD = re.compile(r"[^\W_]+(?:[.\-_][^\W_]+)*")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
# Scripts that put no spaces between words: kana, Han, Thai, Lao, Khmer, Myanmar.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")
_STEM = 6  # letters of a word that count: endings change
_SHORT = 3  # letters of words that are mostly grammar


def content_words(text: str) -> set[str]:
    """Beginnings of the words of more than three letters, of codes with digits whole, and pairs of characters
    where a script has no spaces."""
    text = text.casefold()
    found: set[str] = set()
    for run in _UNSPACED.findall(text):
        found |= {run[i : i + 2] for i in range(max(1, len(run) - 1))}
    for word in _WORD.findall(_UNSPACED.sub(" ", text)):
        if any(c.isdigit() for c in word):
            found.add(word)
        elif len(word) > _SHORT:
            found.add(word[:_STEM])
    return found


def numbers(text: str) -> set[str]:
    """The numbers of a text, without separators of thousands, zeros that say nothing and item numbers."""
    found = _NUMBER.findall(re.sub(r"(?m)^\s*\d+[.)]\s", " ", text))
    return {_plain(number) for number in found}


def _plain(number: str) -> str:
    whole = re.sub(r",(?=\d{3}(\D|$))", "", number)
    return (whole.rstrip("0").rstrip(".") if "." in whole else whole).lstrip("0") or "0"

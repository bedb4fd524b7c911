"""The domain cloze: in a sentence of a held-out page a term is missing; which of four terms stood there?

Terms are words that the documentation has often and general prose hardly ever. The three wrong ones look like
the right one (letters, digits, plural), are about as frequent, and are not in the sentence. Choices go to the
sentence's end, so that what follows the term counts too.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from rockledge.eval.probes.probe import Probe

FAMILY = "domain cloze"
CHOICES = 4
_LEAST_TERMS = 10  # times in what was learnt
_RATIO = 10.0  # more often there than in general prose
_EACH = 6  # items of one term at most
_WORDS_BEFORE, _WORDS_AFTER = (4, 16), (2, 6)
_NEAR = 12  # the most similar frequencies, of which three are drawn

_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_-]*[A-Za-z0-9]")
_SENTENCE = re.compile(r"(?<=[.!?]) +(?=[A-Z])")
_PLAIN = re.compile(r"[A-Za-z0-9 ,;:()'\"./_-]+[.!?]")


@dataclass(frozen=True)
class Terms:
    """Words of a domain with how often it has them."""

    counts: dict[str, int]

    def like(self, term: str, sentence: str) -> list[str]:
        """Other terms that could stand in its place, by how near their frequency is."""
        said = sentence.lower()
        shape = _shape(term)
        others = [
            other
            for other in self.counts
            if _shape(other) == shape and other.lower() not in said and not _related(other, term)
        ]
        return sorted(others, key=lambda other: (abs(self.counts[other] - self.counts[term]), other))


def terms_of(domain: Sequence[str], general: Sequence[str]) -> Terms:
    """The terms of a domain's documents, against general ones."""
    ours = Counter(word for text in domain for word in _WORD.findall(text))
    theirs = Counter(word.lower() for text in general for word in _WORD.findall(text))
    scale = sum(theirs.values()) / sum(ours.values())
    return Terms(
        {
            word: count
            for word, count in ours.items()
            if count >= _LEAST_TERMS and count * scale >= _RATIO * (theirs[word.lower()] + 1)
        }
    )


def items(held_out: Sequence[str], terms: Terms, most: int, seed: int = 0) -> list[Probe]:
    """At most so many items: one a sentence, `_EACH` a term, no sentence twice."""
    random = Random(f"{FAMILY} {seed}")
    sentences = sorted({sentence for text in held_out for sentence in _sentences(text)})
    random.shuffle(sentences)
    used: Counter[str] = Counter()
    found: list[Probe] = []
    for sentence in sentences:
        if len(found) == most:
            break
        item = _item(sentence, terms, used, random)
        if item is not None:
            found.append(item)
    return found


def _sentences(text: str) -> list[str]:
    """Sentences of plain words; lists, tables and code are not."""
    found = _SENTENCE.split(" ".join(text.split()))
    return [one for one in found if _PLAIN.fullmatch(one) and _wordy(one)]


def _wordy(sentence: str) -> bool:
    words = sentence.split()
    plain = sum(word.strip(".,;:()'\"!?").isalpha() for word in words)
    return len(words) >= _WORDS_BEFORE[0] + _WORDS_AFTER[0] + 1 and plain >= 0.85 * len(words)


def _item(sentence: str, terms: Terms, used: Counter[str], random: Random) -> Probe | None:
    words = sentence.split(" ")
    least, most = _WORDS_BEFORE
    places = [
        place
        for place in range(least, len(words) - _WORDS_AFTER[0])
        if words[place] in terms.counts and used[words[place]] < _EACH and words.count(words[place]) == 1
    ]
    random.shuffle(places)
    for place in places:
        term = words[place]
        like = terms.like(term, sentence)[:_NEAR]
        if len(like) < CHOICES - 1:
            continue
        used[term] += 1
        choices = [term, *random.sample(like, CHOICES - 1)]
        random.shuffle(choices)
        before = " ".join(words[max(0, place - most) : place])
        rest = "".join(f" {word}" for word in words[place + 1 : place + 1 + _WORDS_AFTER[1]])
        written = tuple(f" {choice}{rest}" for choice in choices)
        return Probe(FAMILY, before, written, choices.index(term))
    return None


def _shape(word: str) -> tuple[str, bool, bool, bool]:
    case = "upper" if word.isupper() else "title" if word[0].isupper() else "lower"
    marked = any(letter in "_-" or letter.isdigit() for letter in word)
    return case, marked, word.endswith("s"), word[0].lower() in "aeiou"


def _related(one: str, other: str) -> bool:
    one, other = one.lower(), other.lower()
    return one[:5] == other[:5] or one in other or other in one

"""Which documents are held out: so that none of them, nor most of one, is learnt in another.

Documents belong together where most of the smaller one is in the larger: a chapter and its book, two versions
of a page. That is told by runs of words, of which a sample by hash is kept (modulo sketch: Broder, "On the
resemblance and containment of documents", 1997).
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import pairwise
from zlib import crc32

from rockledge.distillation.documents import Document

_RUN = 5  # words
_KEPT = 1_000_000  # runs, of all documents
_CONTAINED = 0.5  # part of the smaller one from which on two belong together
_WIDESPREAD = 32  # documents; a run in more is linked in a chain, which is enough for copies


def belonging_together(documents: Sequence[Document]) -> list[list[int]]:
    """Numbers of the documents in groups, each in order, by their first one."""
    sketches = _sketches([document.text for document in documents])
    holders: dict[int, list[int]] = defaultdict(list)
    for number, sketch in enumerate(sketches):
        for run in sketch:
            holders[run].append(number)
    shared: Counter[tuple[int, int]] = Counter()
    for numbers in holders.values():
        if len(numbers) > _WIDESPREAD:
            shared.update(pairwise(numbers))
        else:
            shared.update((a, b) for i, a in enumerate(numbers) for b in numbers[i + 1 :])
    root = list(range(len(documents)))

    def find(number: int) -> int:
        while root[number] != number:
            root[number] = root[root[number]]
            number = root[number]
        return number

    for (a, b), count in sorted(shared.items()):
        if count >= _CONTAINED * min(len(sketches[a]), len(sketches[b])):
            one, other = sorted((find(a), find(b)))
            root[other] = one
    groups: dict[int, list[int]] = defaultdict(list)
    for number in range(len(documents)):
        groups[find(number)].append(number)
    return [groups[first] for first in sorted(groups)]


def held_out_groups(
    groups: Sequence[Sequence[int]], documents: Sequence[Document], sizes: Sequence[int], share: float
) -> set[int]:
    """Numbers of the documents that are held out: whole groups of about `share` of all `sizes`, by document,
    chosen by their contents alone. At least one group of several, and never all."""
    usable = [group for group in groups if sum(sizes[i] for i in group)]
    if share <= 0 or len(usable) < 2:
        return set()
    ranked = sorted(usable, key=lambda group: min(documents[i].digest for i in group))
    weights = {id(group): sum(sizes[i] for i in group) for group in ranked}
    wanted = share * sum(weights.values())
    most = max(wanted, min(weights.values()))
    taken: list[Sequence[int]] = []
    held = 0
    for group in ranked:
        if held < wanted and held + weights[id(group)] <= most and len(taken) < len(ranked) - 1:
            taken.append(group)
            held += weights[id(group)]
    return {number for group in taken for number in group}


def _sketches(texts: Sequence[str]) -> list[set[int]]:
    words = [text.casefold().split() for text in texts]
    one_in = max(1, sum(map(len, words)) // _KEPT)
    found = []
    for own in words:
        runs = (crc32(" ".join(own[i : i + _RUN]).encode()) for i in range(max(1, len(own) - _RUN + 1)))
        found.append({run for run in runs if run % one_in == 0})
    return found

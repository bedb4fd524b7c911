"""Who is in the next step: rows of answers first, then parts of prompts, admitted by pages.

Every answer that runs has a row in every step, and more for tokens that its grammar forces. Prompts get the
rows that are left in the order of priority, of how little their client has been served lately, and of
arrival; so a client with many requests does not keep another one waiting. Where pages run out, the lowest and
youngest gives its pages back and starts again later, mostly from prefixes that are still there.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from rockledge.runtime.cold_prefixes import ColdPrefixes
from rockledge.runtime.kv_cache import CacheFullError, PageCache
from rockledge.runtime.prefix import NOTHING, Match, PrefixCache, page_names
from rockledge.runtime.sequence import Sequence

HALF_LIFE_S = 60.0
"""After so long a row that a client was served counts half."""

_CLIENTS = 256  # more are looked through for those whose rows count nothing any more


@dataclass(frozen=True)
class Share:
    """`rows` of the pending tokens of a sequence in a step."""

    sequence: Sequence
    rows: int


class Scheduler:
    """The sequences that wait and those that run.

    `prefixes` None: nothing is found again; `cold` None: nothing of what has left the cache. `slots`: how
    many run at most; `step_rows`: of the largest step; `logit_rows`: rows of a step that are drawn from or
    scored.
    """

    def __init__(
        self,
        cache: PageCache,
        prefixes: PrefixCache | None,
        cold: ColdPrefixes | None,
        *,
        slots: int,
        step_rows: int,
        logit_rows: int,
    ) -> None:
        self.waiting: dict[Sequence, None] = {}  # a set with an order: thousands may wait
        self.running: list[Sequence] = []
        self.preemptions = 0
        self._out: set[Sequence] = set()  # preempted while the next step is planned
        self._cache = cache
        self._prefixes = prefixes
        self._cold = cold
        self.most = slots
        """How many run at a time; those that run already go on."""
        self._slots = set(range(slots))
        self._step_rows = step_rows
        self._logit_rows = logit_rows
        self._served: dict[str, tuple[float, float]] = {}  # rows of a client, at a time
        self._most_clients = _CLIENTS

    def add(self, sequence: Sequence) -> None:
        """A new request waits."""
        self.waiting[sequence] = None

    def remove(self, sequence: Sequence) -> None:
        """A request has ended; its full pages stay to be found again."""
        if self._cold is not None:
            self._cold.forget(sequence.request.id)
        if sequence in self.waiting:
            del self.waiting[sequence]
        else:
            self.running.remove(sequence)
            self._leave(sequence)

    def served(self, shares: Iterable[Share]) -> None:
        """Counts the rows of a step for the clients that had them, and keeps the pages that became full."""
        now = time.monotonic()
        for share in shares:
            client = share.sequence.request.client
            self._served[client] = (self._rows_of(client, now) + share.rows, now)
            self._keep(share.sequence)
        if len(self._served) > self._most_clients:
            self._served = {c: had for c, had in self._served.items() if self._rows_of(c, now) >= 1}
            self._most_clients = max(_CLIENTS, 2 * len(self._served))

    def plan(self, limit: Callable[[int, int], int], chosen: Callable[[Sequence], bool]) -> list[Share]:
        """The next step: the rows of every answer, and as many rows of prompts as `limit` says there may be
        beside that many with that many prompts to read. Those that are not `chosen` are left out."""
        self._out.clear()
        answers = self._answers()
        written = sum(share.rows for share in answers)
        unread = len(self.waiting) + len(self.running) - len(answers)
        rows = min(limit(written, unread), self._step_rows - written)
        drawn = sum(share.sequence.logit_rows(share.rows) for share in answers)
        prompts = self._prompts(rows, self._logit_rows - drawn, chosen)
        return [share for share in [*answers, *prompts] if share.sequence not in self._out]

    def prompt(self, chosen: Callable[[Sequence], bool], rows: Callable[[Sequence], int]) -> Share | None:
        """The part of a prompt that is to be read next, of those that are `chosen`: `rows` says how much of
        an admitted one."""
        self._out.clear()
        for sequence in self._ready(chosen):
            count = rows(sequence)
            if count and self._reserved(sequence, count):
                return Share(sequence, count)
        return None

    def _answers(self) -> list[Share]:
        """A row of every answer that runs, and as far as there are any of those with logits, of tokens that
        are forced, with room in the cache for them; oldest first."""
        shares: dict[Sequence, Share] = {}
        answers = sorted((s for s in self.running if s.decoding and not s.busy), key=_rank)
        more = max(0, self._logit_rows - len(answers))
        for sequence in answers:
            rows = 1 + min(sequence.pending - 1, more)
            if sequence.cached is not None and self._room(sequence, rows, shares):
                shares[sequence] = Share(sequence, rows)
                more -= rows - 1
        return list(shares.values())

    def _prompts(self, rows: int, logit_rows: int, chosen: Callable[[Sequence], bool]) -> list[Share]:
        """Parts of prompts for up to `rows` rows, of which up to `logit_rows` may be drawn from or scored;
        those that wait are admitted as room and pages allow. Only those that are `chosen`."""
        shares: list[Share] = []
        if rows <= 0 or logit_rows <= 0:
            return shares
        for sequence in self._ready(chosen):
            count = min(sequence.pending, rows)
            count -= max(0, sequence.logit_rows(count) - logit_rows)
            logit_rows -= sequence.logit_rows(count)
            # Nothing new, unless a page that it shared has to be copied, or a window's pages move on.
            if not self._reserved(sequence, count):
                self._preempt(sequence)
                continue
            rows -= count
            shares.append(Share(sequence, count))
            if rows <= 0 or logit_rows <= 0:
                break
        return shares

    def _ready(self, chosen: Callable[[Sequence], bool]) -> Iterator[Sequence]:
        """Those whose prompts can be read, whose turn it is first; who waits is admitted if there is room."""
        full = False  # nobody overtakes one that finds no room
        for sequence in self._turns():
            if sequence in self._out or not chosen(sequence):
                continue
            if sequence.cached is None:
                match = None if full else self._match(sequence)
                if match is None:
                    continue
                full = not self._admit(sequence, match)
                if full:
                    continue
            yield sequence

    def _turns(self) -> Iterator[Sequence]:
        """Those whose prompt is not read yet, whose turn it is first."""
        now = time.monotonic()
        reading = [s for s in self.running if not s.decoding and not s.busy]
        rows = {s.request.client: self._rows_of(s.request.client, now) for s in [*reading, *self.waiting]}
        yield from sorted(
            [*reading, *self.waiting],
            key=lambda s: (-s.request.priority, rows[s.request.client], s.number),
        )

    def _rows_of(self, client: str, now: float) -> float:
        rows, then = self._served.get(client, (0.0, now))
        return rows * math.exp2((then - now) / HALF_LIFE_S)

    def _match(self, sequence: Sequence, *, parts: bool = True) -> Match | None:
        """What of a sequence is in the cache, with `parts` also inside a page; None where it waits for
        another that reads the same now."""
        if self._prefixes is None or sequence.read_whole:
            return NOTHING
        size = self._cache.page_tokens
        tokens = sequence.tokens[: sequence.told - 1]  # the rest has to be computed in any case
        sequence.names = page_names(sequence.tokens, size, self._prefixes.root, sequence.names)
        names = sequence.names[: len(tokens) // size]
        match = self._prefixes.match(names, tokens, parts=parts)
        following = match.length // size
        if following < len(names):
            # Not for one of lower priority, which others might keep waiting.
            first = sequence.request.priority
            reading = (s for s in self.running if not s.decoding and s.request.priority >= first)
            if any(names[following] in other.names[other.length // size :] for other in reading):
                return None
        if parts and self._cold is not None:
            if self._cold.awaited(sequence.request.id, names, tokens, following):
                return None
            match = self._prefixes.match(names, tokens)
        return match

    def _admit(self, sequence: Sequence, match: Match) -> bool:
        """A place and pages for all of its tokens, if need be those of others that are behind it."""
        if (not self._slots or len(self.running) >= self.most) and not self._make_way(sequence):
            return False
        while not self._placed(sequence, match):
            if match.length % self._cache.page_tokens:  # the page that it would copy is one too many
                match = self._match(sequence, parts=False) or NOTHING
                continue
            if not self._make_way(sequence):
                return False
            match = self._match(sequence) or NOTHING
        del self.waiting[sequence]
        self.running.append(sequence)
        if self._cold is not None:
            self._cold.forget(sequence.request.id)
        sequence.slot, sequence.moved = self._slots.pop(), True
        sequence.kept = match.length // self._cache.page_tokens
        sequence.admitted(match.length)
        return True

    def _placed(self, sequence: Sequence, match: Match) -> bool:
        """Pages for all tokens of a sequence that begins with what was found; false takes none."""
        if self._prefixes is None:
            sequence.cached = self._cache.open()
        else:
            sequence.cached = self._prefixes.resume(match)
        if self._reserved(sequence, sequence.pending) and self._spare():
            return True
        sequence.close()
        return False

    def _spare(self) -> bool:
        """Whether every other sequence that may need one page more could have it: who is let in does not push
        others out right away."""
        growing = sum(sequence.growing for sequence in self.running)
        return all(
            self.free_pages(number, at_least=growing) >= growing
            for number, pool in enumerate(self._cache.pools)
            if pool.window == 0
        )

    def free_pages(self, pool: int, at_least: int | None = None) -> int:
        """Pages of `pool` that no sequence holds; no more than `at_least` need to be counted."""
        free = self._cache.pools[pool].free_pages
        if self._prefixes is None or (at_least is not None and free >= at_least):
            return free
        return free + self._prefixes.cold_pages(pool)

    def _reserved(self, sequence: Sequence, tokens: int) -> bool:
        assert sequence.cached is not None
        try:
            sequence.moved |= sequence.cached.reserve(tokens, min(tokens, self._step_rows))
        except CacheFullError:
            return False
        return True

    def _room(self, sequence: Sequence, rows: int, shares: dict[Sequence, Share]) -> bool:
        """Room for `rows` tokens more; those with a lower rank give their pages for it, then it does
        itself."""
        while not self._reserved(sequence, rows):
            last = max((s for s in self.running if not s.busy), key=_rank)
            self._preempt(last)
            shares.pop(last, None)
            if last is sequence:
                return False
        return True

    def _make_way(self, sequence: Sequence) -> bool:
        """Preempts one that `sequence` may push out: of a lower priority, or of a client that has several
        places where its own has none. False if there is none."""
        others = [s for s in self.running if not s.busy]
        lower = [s for s in others if s.request.priority < sequence.request.priority]
        if not lower and all(s.request.client != sequence.request.client for s in self.running):
            places: dict[str, int] = {}
            for other in self.running:
                places[other.request.client] = places.get(other.request.client, 0) + 1
            lower = [
                s
                for s in others
                if places[s.request.client] > 1 and s.request.priority <= sequence.request.priority
            ]
        if not lower:
            return False
        self._preempt(max(lower, key=_rank))
        return True

    def _preempt(self, sequence: Sequence) -> None:
        """Back into the line, with its place in it; what it has read stays while nobody needs the room."""
        self.preemptions += 1
        self._out.add(sequence)
        self.running.remove(sequence)
        self._leave(sequence)
        self.waiting[sequence] = None

    def _leave(self, sequence: Sequence) -> None:
        self._keep(sequence)
        if self._prefixes is not None and sequence.cached is not None and sequence.findable:
            full = sequence.length // self._cache.page_tokens
            self._prefixes.add_end(sequence.names[:full], sequence.tokens, sequence.cached)
        self._slots.add(sequence.slot)
        sequence.close()

    def _keep(self, sequence: Sequence) -> None:
        """Tells the prefix cache of pages that have become full."""
        if self._prefixes is None or sequence.cached is None or not sequence.findable:
            return
        size = self._cache.page_tokens
        full = sequence.length // size
        if full > sequence.kept:
            sequence.names = page_names(sequence.tokens, size, self._prefixes.root, sequence.names)
            self._prefixes.add(sequence.names[:full], sequence.tokens, sequence.cached, sequence.kept)
            sequence.kept = full


def _rank(sequence: Sequence) -> tuple[int, int]:
    """Higher priority first, then older."""
    return -sequence.request.priority, sequence.number

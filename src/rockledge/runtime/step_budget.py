"""How many rows of prompts ride along in a step, so that the answers of others do not wait long for them.

A step with prompt rows may take SHARE times as long as one without, or as long as the user says. The rows
that fit are found by control: after every mixed step they grow or shrink by what it took. How long a step
without prompts takes is measured, and again from time to time, because it grows with the texts.
"""

SHARE = 1.7
"""Inter-token time beside a prompt, in times of that without: p99 then stays below 2.5 (the goal of
`bench.serving`), and a prompt still gets two fifths of the machine."""
MORE = 0.1
"""How much the share grows for every further prompt, up to MOST times: who waits behind many prompts does not
wait for all answers too."""
MOST = 1.5
ALONE_S = 0.5
"""What a step of prompts alone may take: how long a new request waits before it is looked at."""
TILE = 4
"""Rows that an A76 multiplies at the cost of one (docs/performance.md)."""
_AGAIN = 64  # mixed steps after which a step without prompts is measured again
_FIRST = 16  # prompt rows of the first mixed step
_NEW = 0.2  # weight of the latest measurement


class StepBudget:
    """Rows of prompts for the next step. `most`: rows of the largest step; `step_s`: what a step may take,
    None for what the module says."""

    def __init__(self, most: int, step_s: float | None = None) -> None:
        self.part = 1.0
        """Of the time that prompts would take of a step, how much they may."""
        self._most = most
        self._step_s = step_s
        self._rows = float(_FIRST)
        self._share = SHARE
        self._asked = 0  # rows that were given last
        self._row_s: float | None = None  # of a step of prompts alone
        self._alone: dict[int, float] = {}  # seconds without prompts, by tiles of decode rows
        self._mixed: dict[int, int] = {}  # mixed steps since that was measured

    def rows(self, decode_rows: int, prompts: int = 1) -> int:
        """Rows of `prompts` prompts beside `decode_rows` others; together whole tiles, as far as they go."""
        self._share = SHARE * min(1 + MORE * max(prompts - 1, 0), MOST)
        self._asked = self._beside(decode_rows)
        return self._asked

    def _beside(self, decode_rows: int) -> int:
        if decode_rows == 0:
            if self._row_s is None:
                return self._most
            fits = int((self._step_s or ALONE_S) / self._row_s)
            return max(min(fits // TILE * TILE, self._most), min(8 * TILE, self._most))
        tiles = -(-decode_rows // TILE)
        if tiles not in self._alone or self._mixed.get(tiles, 0) >= _AGAIN:
            return tiles * TILE - decode_rows  # what costs nothing
        # At least one tile more than what costs nothing: a step without would teach nothing about the rest.
        rows = max((decode_rows + int(self._rows)) // TILE, tiles + 1) * TILE
        return max(0, min(rows, self._most) - decode_rows)

    def ran(self, decode_rows: int, prompt_rows: int, seconds: float) -> None:
        """A step of so many rows took `seconds`."""
        tiles = -(-decode_rows // TILE)
        if decode_rows == 0:
            if prompt_rows >= TILE:
                self._row_s = _mean(self._row_s, seconds / prompt_rows)
        elif decode_rows + prompt_rows <= tiles * TILE:
            again = self._mixed.get(tiles, 0) >= _AGAIN
            before = None if again else self._alone.get(tiles)
            self._alone[tiles], self._mixed[tiles] = _mean(before, seconds), 0
        elif tiles in self._alone:
            # Whole tiles are run, so from the rows of such a step alone they would never grow by one.
            there = max(self._rows, prompt_rows) if prompt_rows >= self._asked else prompt_rows
            self._mixed[tiles] = self._mixed.get(tiles, 0) + 1
            wanted = self._step_s or self._share * self._alone[tiles]
            wanted -= (1 - self.part) * max(0.0, wanted - self._alone[tiles])
            rows = there * min(max(wanted / seconds, 0.5), 2.0)
            self._rows = min(max(_mean(self._rows, rows), float(TILE)), float(self._most))


def _mean(before: float | None, now: float) -> float:
    return now if before is None else before + _NEW * (now - before)

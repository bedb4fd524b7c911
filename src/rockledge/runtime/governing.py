"""The governor at work: reads the board once a second, and tells the engine what setting holds.

It reaches the engine in messages alone (`exchange.py`). What it decides by is `board/governor.py`.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from rockledge.board.boards import board_with, find_chip
from rockledge.board.chip import Chip
from rockledge.board.governor import Decision, Reading, State, govern, safe_watts
from rockledge.board.levers import Demand, Rung, Setting, Work, ladder, most_watts
from rockledge.errors import BudgetError, UsageError
from rockledge.runtime.board_sysfs import BoardSysfs
from rockledge.runtime.engine import Engine
from rockledge.runtime.exchange import Adjust, AskStats, ToEngine
from rockledge.runtime.governor_status import GovernorStatus
from rockledge.runtime.modelled_work import bands_of, work_of
from rockledge.runtime.npu_system import compatible
from rockledge.runtime.request import EngineStats

EVERY_S: Final = 1.0
HELD_BACK_S: Final = 60.0
"""For so long after the last setting below the full one the board counts as held back."""
NOBODYS_TAG: Final = -1
"""Of `AskStats`: no call waits for the answer."""

log = logging.getLogger(__name__)


class Governor:
    """Holds a board below `target` °C. `send` reaches the engine's side; `stats`: how the engine stood when
    it was last asked."""

    def __init__(
        self,
        sysfs: BoardSysfs,
        work: Work,
        target: float,
        *,
        send: Callable[[ToEngine], None],
        stats: Callable[[], EngineStats],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sysfs, self._work, self._target = sysfs, work, target
        self._send, self._stats, self._clock = send, stats, clock
        self._most = most_watts(work)
        self._safe = safe_watts(work.board, target)
        self._ladders: dict[Demand, tuple[Rung, ...]] = {}
        self._state = State()
        self._setting = work.full
        self._npu_limit = sysfs.npu_limit() or work.npu_hz
        self._npu_hz = self._npu_limit
        self.decision: Decision | None = None
        """The last one; None before the first."""
        self._limited_at: float | None = None
        self.status = GovernorStatus("free", sysfs.celsius(), target, work.full, work.full, 1.0)
        """How it stands; replaced as a whole, so any thread may read it."""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rockledge governor", daemon=True)

    def start(self) -> None:
        """Begins to read, in a thread of its own."""
        now, npu = self.status.celsius, self._work.npu_hz > 0
        log.info(
            "governor: keeps the board below %.0f °C%s with threads, prompts beside answers%s and admission"
            "%s",
            self._target,
            "" if now is None else f", now at {now:.0f},",
            ", the NPU's clock" if self._work.npu_clocks else "",
            "; the NPU's clock may not be set by this user" if npu and not self._work.npu_clocks else "",
        )
        self._thread.start()

    def close(self) -> None:
        """Ends it, and gives the NPU back the clock that it had. The engine keeps its last setting."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        self._set_npu(self._npu_limit)

    def _run(self) -> None:
        while not self._ended.wait(EVERY_S):
            self.tick()

    def tick(self) -> None:
        """One reading and what follows from it."""
        self._send(AskStats(NOBODYS_TAG))
        demand = demand_of(self._stats(), self._work.sequences)
        if demand not in self._ladders:
            self._ladders[demand] = ladder(self._work, demand)
        reading = Reading(self._clock(), self._sysfs.celsius(), self._sysfs.throttled())
        decision, self._state = govern(
            reading,
            self._state,
            self._ladders[demand],
            target=self._target,
            most_watts=self._most,
            safe=self._safe,
        )
        before, self.status = self.status, self._status(decision, reading)
        self.decision = decision
        _say(before, self.status)
        self._apply(decision.setting)

    def _apply(self, setting: Setting) -> None:
        if setting != self._setting:
            self._setting = setting
            self._send(Adjust(setting))
        self._set_npu(setting.npu_hz)

    def _set_npu(self, hz: float) -> None:
        hz = min(hz, self._npu_limit)  # whoever set that had a reason
        if hz != self._npu_hz and self._work.npu_clocks and self._sysfs.set_npu_clock(hz):
            self._npu_hz = hz

    def _status(self, decision: Decision, reading: Reading) -> GovernorStatus:
        if decision.limits:
            self._limited_at = reading.seconds
        # Between two settings it changes every second: that is one state.
        lately = self._limited_at is not None and reading.seconds - self._limited_at < HELD_BACK_S
        return GovernorStatus(
            state="safe" if decision.trouble else "holding back" if lately else "free",
            celsius=reading.celsius,
            target=self._target,
            setting=decision.setting,
            full=self._work.full,
            kept=decision.kept,
            throttled=reading.throttled,
            reason=decision.trouble or None,
        )


def _say(before: GovernorStatus, now: GovernorStatus) -> None:
    """Changes of state, in the log."""
    if now.safe and (not before.safe or before.reason != now.reason):
        log.warning(
            "the board's temperature is not believed: %s; a safe setting holds, which keeps a modelled "
            "%.0f %% of the speed: %s",
            now.reason,
            100 * now.kept,
            now.describe(),
        )
    elif before.safe and not now.safe:
        log.warning("the board's temperature is believed again")
    if now.state == before.state:
        return
    if now.state == "holding back":
        log.info(
            "the board is at %.0f °C, %.0f are kept: the governor holds it back, now to %s",
            now.celsius or 0.0,
            now.target,
            now.describe(),
        )
    elif now.state == "free":
        log.info("the board is at %.0f °C: the governor no longer holds it back", now.celsius or 0.0)


def demand_of(stats: EngineStats, most: int) -> Demand:
    """What is asked of an engine that stands like this."""
    reading = stats.waiting > 0 or stats.running > stats.decoding
    return Demand(min(stats.decoding, most), reading)


def governed_board(mode: str, root: Path = Path("/")) -> tuple[Chip, BoardSysfs] | None:
    """The chip that a governor would hold, and its files. `mode`: "off" finds none, "auto" one where the
    chip's heat is known and the board gives its temperature, "on" raises UsageError elsewhere."""
    if mode == "off":
        return None
    sysfs, chip = BoardSysfs(root), _governable(root)
    if chip is not None and sysfs.readable:
        return chip, sysfs
    chip = find_chip(compatible(root))
    if mode == "on" and chip is not None and chip.power is None:
        raise UsageError(
            f"--governor on: too little is published of the heat of a {chip.title} to govern it; leave it at "
            "auto"
        )
    if mode == "on":
        raise UsageError(
            "--governor on needs a known board that says how warm it is in /sys/class/thermal; leave it at "
            "auto, or see `rockledge npu info`"
        )
    return None


def _governable(root: Path) -> Chip | None:
    """The chip of this machine, if its heat is known and models run on it."""
    chip = find_chip(compatible(root))
    return None if chip is None or chip.power is None or chip.refused else chip


def make_governor(
    mode: str,
    engine: Engine,
    parallel: int,
    target: float,
    *,
    send: Callable[[ToEngine], None],
    stats: Callable[[], EngineStats],
    root: Path = Path("/"),
    clock: Callable[[], float] = time.monotonic,
) -> Governor | None:
    """The governor of the board that this runs on, for one engine; several engines have one each. `mode` and
    errors as for `governed_board`."""
    found = governed_board(mode, root)
    if found is None:
        if mode == "auto" and (known := _governable(root)) is not None:
            log.warning(
                "no governor: this %s does not say how warm it is in /sys/class/thermal, so only its kernel "
                "keeps it from getting too hot; make that folder readable, or use fewer --threads",
                known.title,
            )
        return None
    chip, sysfs = found
    board = board_with(chip, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    try:
        work = work_of(
            board,
            engine.config,
            bands_of(engine.artifact),
            context=engine.context,
            threads=engine.threads,
            sequences=parallel,
            npu=engine.npu.in_use,
            npu_clocks=sysfs.npu_clocks(),
        )
    except BudgetError as error:
        if mode == "on":
            raise
        log.warning("no governor: %s", error)
        return None
    return Governor(sysfs, work, target, send=send, stats=stats, clock=clock)

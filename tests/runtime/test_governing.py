"""The governor at work: what it reads from a board's files, what it sends to the engine, what it says."""

import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.virtual_board.works import eight_billion

from rockledge.board.levers import Demand, Setting
from rockledge.board.rk3588_heat import COOLINGS
from rockledge.board.thermal import settled
from rockledge.errors import UsageError
from rockledge.runtime.board_sysfs import BoardSysfs
from rockledge.runtime.engine import Engine
from rockledge.runtime.exchange import Adjust, ToEngine
from rockledge.runtime.governing import Governor, demand_of, make_governor
from rockledge.runtime.request import EngineStats
from rockledge.virtual_board.board import VirtualBoard
from rockledge.virtual_board.sysfs import VirtualSysfs

WRITING = EngineStats(running=4, decoding=4)
NPU_LIMIT = "sys/class/devfreq/fdab0000.npu/max_freq"


class Loop:
    """A governor over the files of a virtual board, which does what was sent."""

    def __init__(self, root: Path, ambient: float = 45.0) -> None:
        self.work = eight_billion()
        self.board = VirtualBoard(self.work, COOLINGS["passive"], ambient)
        self.tree = VirtualSysfs(root, self.board)
        self.setting: Setting = self.work.full
        self.sent: list[ToEngine] = []
        self.highest = 0.0
        self.governor = Governor(
            BoardSysfs(root),
            self.work,
            72.0,
            send=self.sent.append,
            stats=lambda: WRITING,
            clock=lambda: self.board.seconds,
        )

    def run(self, seconds: int) -> None:
        for _ in range(seconds):
            self.governor.tick()
            adjusted = [message for message in self.sent if isinstance(message, Adjust)]
            if adjusted:
                self.setting = adjusted[-1].setting
            self.highest = max(self.highest, self.board.advance(1.0, self.setting, Demand(4, False)).highest)
            self.tree.update()


def test_it_holds_a_board_by_messages_and_files_alone(tmp_path: Path) -> None:
    loop = Loop(tmp_path)
    loop.board.heat = settled(COOLINGS["passive"], 5.0)  # as after some minutes
    loop.run(150)
    assert any(isinstance(message, Adjust) for message in loop.sent)
    assert loop.highest <= 74
    assert loop.board.throttle.events == 0


def test_what_it_does_can_be_asked_and_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loop = Loop(tmp_path)
    assert loop.governor.status.state == "free"
    loop.board.heat = settled(COOLINGS["passive"], 5.0)
    with caplog.at_level(logging.INFO):
        loop.run(200)
        held = loop.governor.status
        assert held.state == "holding back"
        assert (held.target, held.full, held.setting) == (72.0, loop.work.full, loop.setting)
        assert held.celsius == pytest.approx(loop.board.sensed, abs=1.0)
        assert 0 < held.kept <= 1
        body = held.body()
        assert body["setting"]["threads"] == loop.setting.threads
        assert body["reason"] is None
        (said,) = [r.message for r in caplog.records if "holds it back" in r.message]
        assert "72 are kept" in said
        assert "of 4 threads" in said
        loop.board.ambient = 10.0
        loop.run(400)
    assert loop.governor.status.state == "free"
    assert "no longer holds it back" in caplog.text


def test_its_start_says_what_it_may_do(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        loop = Loop(tmp_path)
        loop.governor.start()
        loop.governor.close()
    (said,) = [r.message for r in caplog.records if r.message.startswith("governor: ")]
    assert "keeps the board below 72 °C" in said
    assert "the NPU's clock and admission" in said


def test_a_cool_board_is_left_alone(tmp_path: Path) -> None:
    loop = Loop(tmp_path, ambient=10.0)
    loop.run(40)
    assert not any(isinstance(message, Adjust) for message in loop.sent)


@pytest.mark.parametrize("text", ["", "nan", "-999999", "9999999", "hot"])
def test_files_that_lie_are_said(tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    loop = Loop(tmp_path)
    update = loop.tree.update

    def lie() -> None:
        update()
        for number in range(5):
            loop.tree.write(f"sys/class/thermal/thermal_zone{number}/temp", text)

    loop.tree.update = lie  # type: ignore[method-assign]
    lie()
    with caplog.at_level(logging.WARNING):
        loop.run(10)
    assert "is not believed: it gives no possible temperature; a safe setting holds" in caplog.text
    status = loop.governor.status
    assert (status.state, status.safe, status.celsius) == ("safe", True, None)
    assert status.reason == "it gives no possible temperature"
    assert any(isinstance(message, Adjust) for message in loop.sent)


def test_one_zone_that_lies_is_left_out(tmp_path: Path) -> None:
    loop = Loop(tmp_path)
    loop.tree.write("sys/class/thermal/thermal_zone0/temp", "nan")
    assert BoardSysfs(tmp_path).celsius() == pytest.approx(loop.board.sensed, abs=0.001)


def test_one_zone_that_is_far_warmer_than_all_others_is_left_out(tmp_path: Path) -> None:
    loop = Loop(tmp_path)
    for celsius, counts in ((loop.board.sensed + 20, True), (loop.board.sensed + 40, False)):
        loop.tree.write("sys/class/thermal/thermal_zone3/temp", f"{celsius * 1000:.0f}")
        expected = celsius if counts else loop.board.sensed
        assert BoardSysfs(tmp_path).celsius() == pytest.approx(expected, abs=0.001)
    loop.tree.write("sys/class/thermal/thermal_zone4/temp", f"{celsius * 1000:.0f}")  # two agree
    assert BoardSysfs(tmp_path).celsius() == pytest.approx(celsius, abs=0.001)


@pytest.mark.parametrize("limit", [1_000_000_000, 600_000_000])
def test_the_npu_gets_back_the_clock_that_it_had(tmp_path: Path, limit: int) -> None:
    """Also one below its highest, which somebody has set: that one is never exceeded."""
    tree = VirtualSysfs(tmp_path, VirtualBoard(eight_billion(), COOLINGS["passive"], 45.0))
    tree.write(NPU_LIMIT, f"{limit}")
    governor = Governor(
        BoardSysfs(tmp_path),
        eight_billion(),
        72.0,
        send=lambda _: None,
        stats=lambda: EngineStats(running=1),
        clock=iter(range(1000)).__next__,
    )
    found = set()
    for celsius in [*range(60, 84), *range(83, 40, -1), *range(41, 80)]:
        tree.write("sys/class/thermal/thermal_zone1/temp", f"{celsius}000")
        governor.tick()
        found.add(int(tree.read(NPU_LIMIT)))
    assert min(found) < limit
    assert max(found) == limit
    governor.close()
    assert int(tree.read(NPU_LIMIT)) == limit


def test_demand() -> None:
    assert demand_of(EngineStats(), 4) == Demand(0, False)
    assert demand_of(EngineStats(running=2, decoding=1), 4) == Demand(1, True)
    assert demand_of(EngineStats(waiting=1), 4) == Demand(0, True)
    assert demand_of(EngineStats(running=9, decoding=9), 4) == Demand(4, False)


def test_a_hot_board_changes_no_answer_of_a_loaded_engine(
    artifact_path: Callable[[str], Path], tmp_path: Path
) -> None:
    tree = VirtualSysfs(tmp_path, VirtualBoard(eight_billion(), COOLINGS["passive"], 45.0))
    with Engine.load(artifact_path("rotated-tied"), threads=2, ctx=300, prefixes=False) as engine:

        def answer() -> list[int]:
            return [token for piece in engine.generate([1, 2, 3], max_tokens=20) for token in piece.ids]

        def send(message: ToEngine) -> None:
            if isinstance(message, Adjust):
                settings.append(message.setting)
                engine.adjust(message.setting)

        settings: list[Setting] = []
        expected = answer()
        now = iter(range(1000))
        governor = make_governor(
            "on",
            engine,
            4,
            72.0,
            send=send,
            stats=lambda: WRITING,
            root=tmp_path,
            clock=lambda: float(next(now)),
        )
        assert governor is not None
        for celsius in (60, 66, 72, 76, 80, 84):
            tree.write("sys/class/thermal/thermal_zone1/temp", f"{celsius}000")
            governor.tick()
            assert answer() == expected
        assert settings
        assert min(setting.threads for setting in settings) == 1


def made(mode: str, root: Path) -> Governor | None:
    nothing: Any = SimpleNamespace()
    return make_governor(mode, cast(Any, nothing), 4, 72.0, send=lambda _: None, stats=EngineStats, root=root)


@pytest.mark.parametrize("temperature", [None, "nan"])
def test_a_known_board_that_does_not_say_how_warm_it_is_is_said(
    tmp_path: Path, temperature: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    tree = VirtualSysfs(tmp_path, VirtualBoard(eight_billion(), COOLINGS["fan"], 25.0))
    for zone in (tmp_path / "sys/class/thermal").glob("thermal_zone*"):
        (zone / "temp").unlink()
        if temperature is not None:
            tree.write(f"{zone.relative_to(tmp_path)}/temp", temperature)
    assert made("off", tmp_path) is None
    assert not caplog.text
    assert made("auto", tmp_path) is None
    assert "no governor: this RK3588 does not say how warm it is" in caplog.text
    with pytest.raises(UsageError, match="says how warm it is"):
        made("on", tmp_path)


def test_a_machine_that_is_no_known_board_has_none(tmp_path: Path) -> None:
    assert made("auto", tmp_path) is None
    assert made("off", tmp_path) is None
    with pytest.raises(UsageError, match="--governor on needs a known board that says how warm it is"):
        made("on", tmp_path)

"""How long a run still takes: by what was expected first, then by how it goes."""

import pytest

from rockledge.cli.terminal import Terminal
from rockledge.cli.time_left import TimeLeft


class Clock:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_at_the_beginning_it_is_what_was_expected() -> None:
    clock = Clock()
    left = TimeLeft({"forward": 60.0, "round": 300.0, "write": 40.0}, clock)
    clock.now += 0.06
    assert left.seconds("forward", 1, 1000) == pytest.approx(400, rel=0.01)
    assert left.place("round") == "stage 2 of 3"


def test_a_machine_half_as_fast_needs_twice_as_long() -> None:
    clock = Clock()
    left = TimeLeft({"forward": 60.0, "round": 300.0, "write": 40.0}, clock)
    for done in range(1, 11):
        clock.now += 12
        found = left.seconds("forward", done, 10)
    assert found == pytest.approx(2 * 340, rel=0.01)
    for done in range(1, 6):
        clock.now += 60
        found = left.seconds("round", done, 10)
    assert found == pytest.approx(300 + 80, rel=0.01)


def test_a_resumed_stage_counts_only_what_is_done_now() -> None:
    clock = Clock()
    left = TimeLeft({"forward": 0.0, "round": 30.0, "write": 0.0}, clock)
    for done in range(91, 96):
        clock.now += 3
        found = left.seconds("round", done, 100)
    assert found == pytest.approx(15, rel=0.2)


def test_the_end_is_the_end() -> None:
    clock = Clock()
    left = TimeLeft({"write": 5.0}, clock)
    clock.now += 9
    assert left.seconds("write", 3, 3) == 0


def test_a_pipe_shows_stages_and_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr("rockledge.cli.terminal.time.monotonic", clock)
    with Terminal(as_json=False).progress({"forward": 100.0, "round": 800.0}) as advance:
        for done in range(1, 11):
            clock.now += 10
            advance("forward", done, 10)
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == "forward (stage 1 of 2): 10 of 10, 100.0 s, 13 min left"
    assert 3 <= len(lines) <= 5
    assert all(line.startswith("forward (stage 1 of 2): ") and line.endswith(" min left") for line in lines)


def test_quiet_shows_no_progress(capsys: pytest.CaptureFixture[str]) -> None:
    with Terminal(as_json=False, quiet=True).progress() as advance:
        advance("forward", 1, 1)
    assert capsys.readouterr().err == ""

"""`rockledge bench --calibrate-board`: the file that it writes, what that never holds, plans that use it."""

import getpass
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.board_calibration.fake_seconds import measured
from tests.board_calibration.test_npu_work import TIMES

from rockledge.board.facts_file import read_facts
from rockledge.board_calibration import calibrate
from rockledge.board_calibration.measure import Repeated
from rockledge_npu_lab.virtual.preload import environment
from rockledge_npu_lab.virtual.serve_device import VirtualNpu

ROOT = Path(__file__).parents[2]
Run = Callable[..., Any]
MAC = re.compile(r"\b(?:[0-9a-f]{2}[:-]){5}[0-9a-f]{2}\b", re.IGNORECASE)
PATH = re.compile(r"(?<![\w ])/|/(home|root|tmp|sys|proc|dev|etc|usr|var)\b|\.py\b")
ADDRESS = re.compile(r"\b\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}\b|[\w.]+@[\w.]+")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A calibration in which nothing is timed, with its cache in the folder."""
    monkeypatch.setattr(calibrate, "measured", measured)
    monkeypatch.setattr(calibrate, "REPEATS", 1)
    monkeypatch.setenv("ROCKLEDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_a_file_that_people_can_send(rockledge: Run, small: Path) -> None:
    target = small / "facts.json"
    done = rockledge("bench", "--calibrate-board", "--facts", target)
    assert done.code == 0, done.err
    assert "attach that file to an issue" in done.out
    assert "It does not hold a name of yours" in done.out
    assert "rockledge plan MODEL --facts" in done.out
    content = target.read_text()
    assert read_facts(target).board.value("cpu_cores") == json.loads(content)["threads"]
    secrets = {socket.gethostname(), os.uname().nodename, getpass.getuser(), str(Path.home()), str(small)}
    for file in ("/etc/machine-id", "/sys/class/net/eth0/address", "/proc/device-tree/serial-number"):
        if Path(file).is_file():
            secrets.add(Path(file).read_text(errors="replace").strip("\0\n "))
    for secret in secrets - {""}:
        assert not re.search(rf"\b{re.escape(secret)}\b", content), secret
    for pattern in (MAC, PATH, ADDRESS):
        assert not pattern.search(content), pattern.search(content)
    left = [path for path in small.rglob("*") if path.is_file() and path != target]
    assert left == []


def test_a_busy_machine_is_noticed(rockledge: Run, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(probes: Any, **settings: Any) -> Repeated:
        steady = measured(probes, **settings)
        return replace(
            steady, seconds={probe: [s[0], 1.5 * s[0], 2 * s[0]] for probe, s in steady.seconds.items()}
        )

    done = rockledge("bench", "--calibrate-board", "--facts", small / "steady.json")
    assert "more than 25% apart" not in done.out
    monkeypatch.setattr(calibrate, "measured", busy)
    done = rockledge("bench", "--calibrate-board", "--facts", small / "busy.json")
    assert (done.code, "figures are more than 25% apart" in done.out) == (0, True)


def test_json(rockledge: Run, small: Path) -> None:
    done = rockledge("bench", "--calibrate-board", "--facts", small / "facts.json", "--json")
    body = done.json
    assert (done.code, body["facts"]) == (0, str(small / "facts.json"))
    assert body["values"]["cpu_read_bandwidth"] > 0
    assert set(body["values"]) == set(json.loads((small / "facts.json").read_text())["facts"])


def test_a_plan_for_what_was_measured(rockledge: Run, small: Path) -> None:
    target = small / "facts.json"
    rockledge("bench", "--calibrate-board", "--facts", target)
    done = rockledge("plan", "llama-3.2-1b", "--facts", target, "--json")
    assert done.code == 0, done.err
    plan = done.json
    assert (plan["board"], plan["facts"]) == ("measured", str(target))
    assert plan["decode_tok_s"]["4"]["likely"] > 0
    assert plan["energy_j_per_token"] is None
    shown = rockledge("plan", "llama-3.2-1b", "--facts", target).out
    assert "ranges are from what was measured" in shown
    assert "energy" not in shown


def test_nothing_is_replaced_without_being_asked(rockledge: Run, small: Path) -> None:
    target = small / "facts.json"
    target.write_text("mine")
    done = rockledge("bench", "--calibrate-board", "--facts", target)
    assert (done.code, target.read_text()) == (2, "mine")
    assert "--overwrite" in done.err
    assert rockledge("bench", "--calibrate-board", "--facts", target, "--overwrite").code == 0
    assert read_facts(target)


def test_what_is_wrong_is_said_before_anything_is_measured(
    rockledge: Run, tmp_path: Path, artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrate, "calibrate", None)
    done = rockledge("bench", "--calibrate-board", "--facts", tmp_path / "no" / "facts.json")
    assert (done.code, "does not exist; make it" in done.err) == (2, True)
    for place in ("/proc/facts.json", "/dev/null", tmp_path):
        done = rockledge("bench", "--calibrate-board", "--facts", place, "--overwrite")
        assert done.code in (1, 2)
        assert str(place) in done.err
        assert "choose a" in done.err
    done = rockledge("bench", artifact, "--calibrate-board")
    assert (done.code, "measures without a model" in done.err) == (2, True)
    done = rockledge("bench")
    assert (done.code, "give the artifact to measure, or --calibrate-board" in done.err) == (2, True)


def test_what_cannot_be_is_not_written(rockledge: Run, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "clock_hz", lambda cores: 1.0)
    done = rockledge("bench", "--calibrate-board", "--facts", small / "facts.json")
    assert done.code == 2
    assert "cpu_hz of what was measured is 1 Hz, expected 1e+07 to 1e+10 Hz" in done.err
    assert not (small / "facts.json").exists()


@pytest.mark.parametrize("content", ["{}", "not JSON", '{"kind": "rockledge board facts", "version": 99}'])
def test_a_plan_refuses_what_is_not_such_a_file(rockledge: Run, tmp_path: Path, content: str) -> None:
    file = tmp_path / "facts.json"
    file.write_text(content)
    done = rockledge("plan", "llama-3-8b", "--facts", file)
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert "facts.json" in done.err
    assert rockledge("plan", "llama-3-8b", "--facts", tmp_path / "nowhere").code == 2
    both = rockledge("plan", "llama-3-8b", "--facts", file, "--board", "rpi5-8gb")
    assert (both.code, "not allowed with" in both.err) == (2, True)


@pytest.mark.parametrize("changes", [{"hz": 1.0}, {"large": (60.0,)}, {"small": (11.0,)}])
def test_an_npu_that_lies_is_left_out(
    rockledge: Run, small: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    """A clock of 1 Hz, a core that does next to nothing: the CPU's figures are not lost with that."""
    monkeypatch.setattr(calibrate, "npu_times", lambda repeats, hz: replace(TIMES, **changes))
    done = rockledge("bench", "--calibrate-board", "--facts", small / "facts.json")
    assert done.code == 0, done.err
    assert "No NPU was measured: its figures cannot be true: npu_" in done.out
    assert read_facts(small / "facts.json").npu is None


SCRIPT = """
import sys
from rockledge.board_calibration import calibrate
from rockledge.cli.main import main
from tests.board_calibration.fake_seconds import measured
calibrate.measured = measured
calibrate.REPEATS = 1
sys.exit(main(["bench", "--calibrate-board", "--facts", sys.argv[1]]))
"""


def test_a_virtual_npu_is_marked_and_used_by_nobody(tmp_path: Path) -> None:
    target = tmp_path / "facts.json"
    with VirtualNpu("rknpu") as npu:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(target)],
            cwd=ROOT,
            env={**environment(npu.address, os.environ), "ROCKLEDGE_CACHE": str(tmp_path / "cache")},
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr
    assert "The NPU is a virtual one" in done.stdout
    facts = read_facts(target)
    assert facts.npu is not None
    assert (facts.npu.driver, facts.npu.virtual) == ("rknpu", True)
    assert facts.npu.facts["npu_submit_seconds"].value > 0
    assert not facts.board.has_npu
    content = target.read_text()
    assert not PATH.search(content), PATH.search(content)

"""What people and programs are told about the NPU."""

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rockledge.errors import NpuError, UsageError
from rockledge.runtime.engine import Engine
from rockledge.runtime.npu_device import NpuDevice
from rockledge.runtime.offload import use
from rockledge.runtime.offload.choose import unused
from rockledge.runtime.offload.status import NpuStatus
from rockledge.runtime.offload.use import NpuUnusedError

ArtifactPath = Callable[[str], Path]
READY = NpuStatus("ready", driver="rocket", version="1.0.0", steps=1, rows=60)


def test_a_line_for_people() -> None:
    assert READY.line() == "NPU rocket 1.0.0: 60 tokens in 1 step"
    faulty = replace(READY, steps=2, faults=3, resets=1)
    assert faulty.line().endswith("in 2 steps, 3 faults, 1 reset")
    assert replace(faulty, state="failed", reason="it went away").line().endswith("; it went away")
    assert NpuStatus("none", "there is none").line() == "no NPU: there is none"


def test_an_object_for_programs() -> None:
    body = json.loads(json.dumps(READY.body()))
    assert (body["state"], body["reason"], body["rows"], body["fallbacks"]) == ("ready", None, 60, 0)


@pytest.mark.parametrize("state, level", [("none", "INFO"), ("slower", "INFO"), ("unusable", "WARNING")])
def test_only_what_is_wrong_is_a_warning(state: str, level: str, caplog: pytest.LogCaptureFixture) -> None:
    error = NpuUnusedError("for a reason", state)  # type: ignore[arg-type]
    with caplog.at_level(logging.INFO, "rockledge"):
        status = unused("auto", error)
    assert (status.state, status.reason) == (state, "for a reason")
    (record,) = caplog.records
    assert record.levelname == level
    with pytest.raises(NpuError, match="required and cannot be used: for a reason"):
        unused("require", error)


def test_a_machine_without_one(artifact_path: ArtifactPath, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message of the core itself, asked for a driver that this machine does not have."""
    monkeypatch.setattr(use, "NpuDevice", _missing)
    with Engine.load(artifact_path("tied"), threads=1, ctx=64) as engine:
        assert engine.npu.state == "none"
        assert "there is no NPU here" in str(engine.npu.reason)
    with pytest.raises(NpuError, match="required and cannot be used: there is no NPU here"):
        Engine.load(artifact_path("tied"), threads=1, ctx=64, npu="require")


def _missing() -> None:
    for driver in ("rknpu", "rocket"):  # no machine has both
        try:
            NpuDevice(driver).close()
        except NpuError as error:
            if str(error).startswith("there is no NPU here"):
                raise
    raise AssertionError("this machine has two NPUs")


def test_senseless_settings(artifact_path: ArtifactPath) -> None:
    with pytest.raises(UsageError, match="auto, off, require"):
        Engine.load(artifact_path("tied"), npu="maybe")
    with pytest.raises(UsageError, match="at least 1"):
        Engine.load(artifact_path("tied"), npu_rows=0)

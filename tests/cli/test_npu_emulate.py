"""`rockledge npu emulate`: the command's exit code and output, faults from a file, what is left."""

import json
import subprocess
import sys

import pytest

INFO = [sys.executable, "-m", "rockledge", "npu", "info"]


def emulate(*arguments):
    command = [sys.executable, "-m", "rockledge", "npu", "emulate", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100)


@pytest.mark.parametrize("driver", ["rknpu", "rocket"])
def test_a_command_finds_an_npu(driver):
    done = emulate("--driver", driver, "--", *INFO, "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["device"]["driver"] == driver  # stdout is the command's alone
    assert f"virtual NPU ({driver})" in done.stderr
    assert "not freed" not in done.stderr


def test_with_json_the_summary_is_alone_on_stdout():
    done = emulate("--json", "--driver-version", "0.9.7", "--", *INFO)
    summary = json.loads(done.stdout)
    assert (summary["driver"], summary["buffers_left"]) == ("rknpu", 0)
    assert 1 <= summary["jobs"] <= summary["programs"]
    assert "rknpu 0.9.7" in done.stderr


def test_an_old_driver_gets_no_job():
    done = emulate("--json", "--driver-version", "0.9.3", "--", *INFO)
    summary = json.loads(done.stdout)
    assert (summary["jobs"], summary["programs"], summary["buffers_left"]) == (0, 0, 0)


def test_faults_of_a_file_happen(tmp_path):
    file = tmp_path / "faults.json"
    file.write_text(json.dumps({"faults": [{"kind": "skipped"}, {"kind": "wrong"}]}))
    summary = json.loads(emulate("--json", "--faults", file, "--", *INFO).stdout)
    assert (summary["faults"], summary["resets"], summary["exit_code"]) == (2, 1, 0)


def test_the_exit_code_is_the_command_s():
    assert emulate("--", "sh", "-c", "exit 7").returncode == 7
    assert emulate("--", "sh", "-c", "kill -9 $$").returncode == 128 + 9


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--faults", "/nowhere.json", "--", "true"], "cannot be read"),
        (["--driver-version", "new", "--", "true"], "three numbers"),
        (["--", "/nowhere/command"], "cannot be run"),
        ([], "required"),
    ],
)
def test_mistakes_are_one_sentence(rockledge, arguments, words):
    done = rockledge("npu", "emulate", *arguments)
    assert done.code in (1, 2)
    assert words in done.err
    assert len(done.err.strip().splitlines()) == 1

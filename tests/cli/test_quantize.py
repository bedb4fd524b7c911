"""`rockledge quantize`: estimate, artifact, table of budgets; impossible wishes; Ctrl-C."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.model.oracle import CASES

from rockledge import __version__
from rockledge.board.boards import BOARDS
from rockledge.board.memory import plan_memory
from rockledge.synth import SHAPES

Run = Callable[..., Any]
SMALL = ("--tokens", 512)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small products gain nothing from threads, and lose much where tests run beside each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_checkpoint_becomes_an_artifact_within_its_budget(
    rockledge: Run, checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "made"
    done = rockledge("quantize", checkpoint, "-o", out, "--bits", 5, *SMALL, "--json")
    assert done.code == 0
    body = done.json
    assert done.err.startswith("Estimate: ")
    assert body["estimate"]["size_mb"] == pytest.approx(5 * body["parameters"] / 8e6, rel=0.01)
    assert body["bits_per_weight"] <= 5
    assert [row["bits_asked"] for row in body["budgets"]] == [3.25, 3.5, 4.0, 4.25, 4.5, 5.0, 8.0]
    met = [row for row in body["budgets"] if row["bits_per_weight"] is not None]
    losses = [row["kl_predicted_nats"] for row in met]
    assert losses == sorted(losses, reverse=True)
    assert all(row["bits_per_weight"] <= row["bits_asked"] for row in met)
    inspected = rockledge("inspect", out, "--verify", "--json").json
    assert inspected["bits_per_weight"] == pytest.approx(body["bits_per_weight"], abs=1e-3)
    assert rockledge("run", out, "Hello", "--max-tokens", 3).code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["made"]

    again = tmp_path / "again"
    people = rockledge("quantize", checkpoint, "-o", again, "--recipe", out / "recipe.yaml")
    assert people.code == 0
    assert "tok/s on rk3588-8gb" in people.out
    assert (again / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    "flags, code, hint",
    [
        (("--bits", "0.5"), 1, "nearest"),
        (("--bits", "few"), 2, "4.25"),
        (("--bits", "nan"), 2, "4.25"),
        (("--milliseconds", "1e-5"), 1, "nearest"),
        (("--milliseconds", "0"), 2, "170"),
        (("--fast", "--recipe", "nowhere.yaml"), 2, "nowhere.yaml"),
        (("--fit", "toaster"), 2, "rk3588-8gb"),
        (("--recipe", "nowhere.yaml"), 2, "nowhere.yaml"),
    ],
)
def test_impossible_wishes_are_one_sentence_and_leave_nothing(
    rockledge: Run, checkpoint: Path, tmp_path: Path, flags: tuple[str, ...], code: int, hint: str
) -> None:
    done = rockledge("quantize", checkpoint, "-o", tmp_path / "made", *flags, *SMALL, "--json")
    assert done.code == code
    assert hint in done.json["error"]
    assert list(tmp_path.iterdir()) == []


def test_a_directory_of_something_else_is_not_replaced(
    rockledge: Run, checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    done = rockledge("quantize", checkpoint, "-o", tmp_path, *SMALL)
    assert done.code == 1
    assert "is not an artifact" in done.err
    assert "forward" not in done.err  # said before the work, not after it
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_the_result_answers_what_was_asked(rockledge: Run, checkpoint: Path, tmp_path: Path) -> None:
    flags = ("--milliseconds", 0.004, "--fast", *SMALL)
    out = tmp_path / "made"
    done = rockledge("quantize", checkpoint, "-o", out, *flags)
    assert done.code == 0
    estimated = float(re.search(r"\(([\d.]+) bits a weight\)", done.err)[1])
    line = next(line for line in done.out.splitlines() if line.startswith("On rk3588-8gb (modelled): "))
    body = json.loads((out / "report.json").read_text())
    assert estimated == pytest.approx(body["bits_per_weight"], rel=0.25)
    assert 0 < body["ms_per_token_predicted"] <= 0.004
    assert f"({body['ms_per_token_predicted']:.1f} ms a token)" in line
    assert f"{body['decode_tok_s_predicted']:.1f} tok/s" in line
    assert "context of 512 tokens, 512 tokens at most" in line  # the model has no more
    board = BOARDS["rk3588-8gb"]
    plan = plan_memory(board, SHAPES["toy"], 512, weights_bytes=body["tensor_bytes"])
    assert body["board_memory_bytes"] == plan.weights_bytes + plan.kv_bytes + plan.arena_bytes
    (mine,) = [row for row in body["budgets"] if row["made"]]
    assert mine["bits_per_weight"] == body["bits_per_weight"]
    assert mine["kl_predicted_nats"] == body["divergence"]["kl_mean_nats"]
    assert done.out.count("(this one)") == 1


def test_the_row_asked_for_is_in_the_table(rockledge: Run, checkpoint: Path, tmp_path: Path) -> None:
    rows = rockledge(
        "quantize", checkpoint, "-o", tmp_path / "made", "--bits", 6.2, "--fast", *SMALL, "--json"
    ).json["budgets"]
    assert [row["bits_asked"] for row in rows] == [3.25, 3.5, 4.0, 4.25, 4.5, 5.0, 6.2, 8.0]
    assert [row["bits_asked"] for row in rows if row["made"]] == [6.2]


def test_the_report_says_how_it_was_made(rockledge: Run, checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "made"
    assert rockledge("quantize", checkpoint, "-o", out, "--fast", "--bits", 5, "--seed", 7, *SMALL).code == 0
    text = (out / "report.md").read_text()
    made = text.partition("## How it was made")[2]
    for line in (
        f"- command: `rockledge quantize {checkpoint} -o {out} --fast --bits 5 --seed 7 --tokens 512`",
        f"- version: {__version__}",
        "- calibration tokens: 512",
        "- seed: 7",
    ):
        assert line in made
    for start in ("- time: ", "- peak memory: ", "- calibration text: built-in (SHA-256 "):
        assert start in made
    assert "rounding nearest" in made
    assert "On rk3588-8gb (modelled): " in text


def test_a_finished_work_directory_is_in_the_estimate(
    rockledge: Run, checkpoint: Path, tmp_path: Path
) -> None:
    command = ("quantize", checkpoint, "--work", tmp_path / "work", "--bits", 5, *SMALL, "--json")
    first = rockledge(*command, "-o", tmp_path / "first").json["estimate"]
    again = rockledge(*command, "-o", tmp_path / "second").json["estimate"]
    assert set(first["stages"]) == {"forward", "round", "check", "write"}
    assert again["stages"]["forward"] == again["stages"]["round"] == 0
    assert again["seconds"] <= first["seconds"]


@pytest.mark.parametrize(
    "device, said",
    [
        ("gpu", "the device is 'gpu', expected cpu or cuda"),
        ("meta", "expected cpu or cuda"),
        ("cuda:x", "expected cpu or cuda"),
        ("cuda", "there is no CUDA device here"),
        ("cuda:3", "there is no CUDA device here"),
    ],
)
def test_a_device_that_is_not_here_is_refused_at_once(
    rockledge: Run, checkpoint: Path, tmp_path: Path, device: str, said: str
) -> None:
    if device.startswith("cuda") and torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    done = rockledge("quantize", checkpoint, "-o", tmp_path / "made", "--device", device)
    assert done.code == 2
    assert said in done.err
    assert "Estimate" not in done.err
    assert list(tmp_path.iterdir()) == []


def test_an_artifact_is_not_replaced_unasked(
    rockledge: Run, checkpoint: Path, artifact: Path, tmp_path: Path
) -> None:
    place = shutil.copytree(artifact, tmp_path / "mine")
    before = (place / "model.safetensors").read_bytes()
    command = ("quantize", checkpoint, "-o", place, "--bits", 8, "--fast", *SMALL)
    for flags in ((), ("--force",)):
        refused = rockledge(*command, *flags)
        assert refused.code == 1
        assert "add --overwrite to replace it" in refused.err
        assert "forward" not in refused.err  # said before the work, not after it
    assert (place / "model.safetensors").read_bytes() == before
    assert rockledge(*command, "--overwrite").code == 0
    assert (place / "model.safetensors").read_bytes() != before


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_end_in_the_middle_leaves_nothing(
    checkpoint: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    program = [sys.executable, "-m", "rockledge", "quantize", str(checkpoint), "-o", str(tmp_path / "made")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [*program, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("forward"):
                process.send_signal(number)
                break
        rest = process.stderr.read()
        assert process.wait(60) == code
        assert process.stdout.read() == ""
    assert "Traceback" not in rest
    assert list(tmp_path.iterdir()) == []


def test_too_short_a_text_needs_force_and_work_is_kept(
    rockledge: Run, checkpoint: Path, tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("".join(f"{i:07d} " for i in range(200)))  # 1,600 bytes: three sequences
    command = ("quantize", checkpoint, "-o", tmp_path / "made", "--bits", 5, "--calibration", text)
    refused = rockledge(*command, *SMALL)
    assert refused.code == 2
    assert "tokens, but 2560 are needed" in refused.err
    assert "--force" in refused.err
    done = rockledge(*command, *SMALL, "--force", "--work", tmp_path / "work")
    assert done.code == 0
    assert "2560 are needed" in done.out
    other = rockledge(*command, *SMALL, "--force", "--work", tmp_path / "work", "--seed", 1, "--overwrite")
    assert other.code == 2
    assert "belongs to another run" in other.err


def test_what_was_guessed_and_what_was_folded_is_said_everywhere(rockledge: Run, tmp_path: Path) -> None:
    out = tmp_path / "made"
    done = rockledge("quantize", CASES / "f8_nopre.gguf", "-o", out, "--bits", 5, "--fast", *SMALL, "--json")
    guess = "The file does not say how text is split into words"
    assert done.code == 0
    assert done.err.startswith(f"Note: {guess}")
    assert done.json["notes"][0].startswith(guess)
    assert f"Note: {guess}" in (out / "report.md").read_text()
    inspected = rockledge("inspect", out, "--json").json
    assert inspected["notes"] == json.loads((out / "report.json").read_text())["notes"] == done.json["notes"]
    assert f"Note: {guess}" in rockledge("inspect", out).out

    done = rockledge("quantize", CASES / "f1_mistral", "-o", tmp_path / "m", "--bits", 5, "--fast", *SMALL)
    assert done.code == 0
    assert "Note: Built-in conversations 7, 8: the chat template refuses the system message" in done.out
    # The artifact's template refuses a system message still, and takes the others.
    assert rockledge("run", tmp_path / "m", "Hi", "--max-tokens", 2).code == 0

"""`rockledge export` from the command line."""

import json
from pathlib import Path

import pytest
from tests.export.artifacts import converted, held

from rockledge.cli.main import main


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return converted(held("llama-biases"), tmp_path_factory.mktemp("made") / "artifact")


def test_the_cost_is_printed_and_in_the_object(
    artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    command = ["export", str(artifact), "--to", "gguf", "--type", "q8_0", "--tokens", "128", "-o", out]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "rounded to q8_0: " in said
    assert "nats a token from the artifact" in said
    assert f"{out} is complete" in said
    assert main([*command[:-1], str(tmp_path / "again"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["to"], found["architecture"]) == ("gguf", "llama")
    assert 0 < found["cost"]["q8_0"]["kl_mean_nats"] < 0.01


@pytest.mark.parametrize(
    "more, said",
    [
        (["--to", "hf", "--blocks"], "--blocks belongs to --to rknn"),
        (["--to", "gguf", "--rknn-python", "x"], "--rknn-python belongs to --to rknn"),
        (["--to", "hf", "--type", "int3"], "hf has no type 'int3'"),
        (["--to", "rknn", "--rknn-python", "/nowhere/python"], "cannot be run as a Python"),
    ],
)
def test_bad_requests_are_one_sentence(
    more: list[str], said: str, artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(artifact), *more, "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_is_not_an_artifact(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model").mkdir()
    assert main(["export", str(tmp_path / "model"), "--to", "hf", "-o", str(tmp_path / "out")]) == 2
    assert "is not an artifact; make one with" in capsys.readouterr().err

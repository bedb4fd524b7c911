"""The whole example in its small form: it makes the table, and goes on where it was stopped."""

from pathlib import Path

import pytest

from examples.industrial.__main__ import main
from examples.industrial.chain import steps

_SMALL = ["--small", "--tokens", "4096"]


def test_every_run_takes_as_many_tokens_and_only_known_models(tmp_path: Path) -> None:
    made: set[str] = {"teacher"}
    tokens = set()
    for step in steps(tmp_path / "teacher", tmp_path, 1000):
        inputs = step.command[1:3] if step.command[0] == "distill" else step.command[1:2]
        assert {Path(one).name for one in inputs} <= made
        made.add(step.name)
        if step.command[0] == "distill":
            tokens.add(step.command[step.command.index("--tokens") + 1])
    assert tokens == {"1000"}


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_the_small_form_prints_the_table_and_a_second_run_prints_it_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["--work", str(tmp_path), *_SMALL]) == 0, capfd.readouterr().err[-2000:]
    first = capfd.readouterr().out
    rows = [line for line in first.splitlines() if line.startswith("| ")]
    assert len(rows) == 2 + 10
    assert "distillation recovered" in first
    assert "quantisation-aware training" in first
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert main(["--work", str(tmp_path), *_SMALL]) == 0
    assert [line for line in capfd.readouterr().out.splitlines() if line.startswith("| ")] == rows
    assert all(path.stat().st_mtime_ns == when for path, when in written.items())

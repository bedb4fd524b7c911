"""The ablation over a toy model: every ingredient can be left out, and the table says what that costs."""

import json
from pathlib import Path

import pytest
from tests.bench.test_accuracy import toy

from bench import ablation
from bench.accuracy_models import TableModel
from bench.accuracy_rows import Measured, Row

__all__ = ["toy"]  # the fixture


class FakeWorkshop:
    """Knows the divergence of every row."""

    asked: list[tuple[str, str, bool]]

    def __init__(self, task: object, apart: str = "") -> None:
        pass

    def row(self, name: str, bits: float, lines: str = "", *, even: bool = False) -> Measured:
        kl = 0.2 if "rotation of" in name else 0.1
        FakeWorkshop.asked.append((name, lines, even))
        return Measured(Row("toy", "rockledge", name, 100, bits, kl, kl, 0.9, 10.0, "abc1234"), 0.001, 9.0)

    def close(self) -> None:
        pass


def test_a_gain_is_what_is_lost_without(
    toy: TableModel,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    FakeWorkshop.asked = []
    monkeypatch.setattr(ablation, "Workshop", FakeWorkshop)
    monkeypatch.setattr(ablation, "MODELS", {"smollm2-135m": toy})
    monkeypatch.setattr(ablation, "RESULTS", tmp_path / "results")
    assert ablation.main(["--bits", "4.25", "--windows", "2"]) == 0
    rows = json.loads((tmp_path / "results" / "ablation.json").read_text())["rows"]
    gain = {row["without"]: row["gain"] for row in rows}
    assert gain.pop("rotation of residual stream and heads") == pytest.approx(1.0)
    assert set(gain.values()) == {0.0}
    assert {row["everything_kl_nats"] for row in rows} == {0.1}
    assert {row["commit"] for row in rows} == {"abc1234"}
    assert len(gain) == len(ablation.VARIANTS) - 1
    assert ("4.25 without error feedback (GPTQ)", "steps: {rounding: nearest}\n", False) in FakeWorkshop.asked
    assert "+100.0%" in capsys.readouterr().out


@pytest.mark.slow
def test_every_ingredient_can_be_left_out(
    toy: TableModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(ablation, "MODELS", {"smollm2-135m": toy})
    monkeypatch.setattr(ablation, "RESULTS", tmp_path / "results")
    assert ablation.main(["--bits", "4.25", "--windows", "2", "--threads", "1"]) == 0
    rows = json.loads((tmp_path / "results" / "ablation.json").read_text())["rows"]
    assert len(rows) == len(ablation.VARIANTS)
    assert all(row["bits_per_weight"] < 4.3 and row["kl_mean_nats"] > 0 for row in rows)
    kl = {row["without"]: row["kl_mean_nats"] for row in rows}
    assert kl["error feedback (GPTQ)"] > kl["everything"]

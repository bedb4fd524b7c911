"""The whole way on tiny models: sizes, the artifact against the fake-quantised model, recipes, failures."""

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rockledge
from rockledge.artifact import Artifact, open_artifact
from rockledge.board.time import predict_decode
from rockledge.errors import BudgetError, RockledgeError, UsageError
from rockledge.model.checkpoint import open_checkpoint
from rockledge.model.config import ModelConfig
from rockledge.quantization import estimate as estimate_module
from rockledge.quantization.choosing.recipe import read_recipe
from rockledge.quantization.estimate import Speed
from rockledge.quantization.pipeline import estimate, quantize
from rockledge.quantization.steps import FAST
from rockledge.synth import SHAPES, synth_checkpoint

TOY = SHAPES["toy"]
MODELS: dict[str, ModelConfig] = {
    "tied": TOY,
    "untied": replace(TOY, tied=False),
    "bias": replace(TOY, family="qwen2", qkv_bias=True),
    "qk-norm": replace(TOY, family="qwen3", qk_norm=True, tied=False),
}
TOKENS = 2048


def made(tmp_path: Path, config: ModelConfig = TOY, name: str = "out", **settings: Any) -> Path:
    source = tmp_path / "model"
    if not source.exists():
        synth_checkpoint(config, source)
    quantize(source, tmp_path / name, tokens=TOKENS, **settings)
    return tmp_path / name


@pytest.mark.parametrize("name", MODELS)
def test_every_kind_of_model_stays_within_its_budget(name: str, tmp_path: Path) -> None:
    artifact = open_artifact(made(tmp_path, MODELS[name], bits=5.0))
    artifact.verify()
    assert 4.5 < artifact.bits_per_weight <= 5.0
    assert artifact.config == MODELS[name]
    assert set(artifact.files) >= {"tokenizer.json", "chat_template.jinja", "generation_config.json"}
    report = artifact.report
    assert report is not None
    assert report["bits_per_weight"] == pytest.approx(artifact.bits_per_weight)
    assert report["divergence"]["kl_mean_nats"] < 0.05
    # Nothing is left of the work but the artifact.
    assert {path.name for path in tmp_path.iterdir()} == {"model", "out"}


def test_report_and_table_of_budgets(tmp_path: Path) -> None:
    source = synth_checkpoint("toy", tmp_path / "model")
    report = quantize(source, tmp_path / "out", bits=5.0, tokens=TOKENS)
    numbers = report.numbers
    assert (tmp_path / "out" / "report.md").read_text() == report.text
    rows = {row["bits_asked"]: row for row in numbers["budgets"]}
    assert list(rows) == [3.25, 3.5, 4.0, 4.25, 4.5, 5.0, 8.0]
    possible = [row for row in numbers["budgets"] if row["bits_per_weight"] is not None]
    for row in possible:
        assert row["bits_per_weight"] <= row["bits_asked"]
    costs = [row["kl_predicted_nats"] for row in possible]
    assert costs == sorted(costs, reverse=True)
    # The level of predictions is set by the measurement.
    same = rows[5.0]
    assert same["kl_predicted_nats"] == pytest.approx(numbers["divergence"]["kl_mean_nats"])
    assert same["tensor_bytes"] == numbers["tensor_bytes"]
    # A toy is mostly padding: narrow budgets are impossible, and the row says what would be.
    assert rows[3.25]["nearest"] > 3.25
    weights = sum(part["weights"] for part in numbers["parts"])
    assert 0 < numbers["parameters"] - weights < 0.01 * weights  # the norms


def test_more_bits_cost_less(tmp_path: Path) -> None:
    costs = []
    for bits in (4.5, 8.5):
        report = open_artifact(made(tmp_path, name=str(bits), bits=bits)).report
        assert report is not None
        costs.append(report["divergence"]["kl_mean_nats"])
    assert costs[1] < 0.2 * costs[0]


def test_the_same_arguments_and_the_recipe_make_the_same_bytes(tmp_path: Path) -> None:
    first = made(tmp_path, name="first", bits=5.0, seed=4)
    again = made(tmp_path, name="again", bits=5.0, seed=4)
    by_recipe = made(tmp_path, name="recipe", recipe=first / "recipe.yaml")
    other = made(tmp_path, name="other", bits=5.0, seed=5)
    tensors = [(path / "model.safetensors").read_bytes() for path in (first, again, by_recipe, other)]
    assert tensors[0] == tensors[1]
    assert tensors[0] == tensors[2]
    assert tensors[0] != tensors[3]
    assert read_recipe(first / "recipe.yaml") == read_recipe(by_recipe / "recipe.yaml")


def test_a_recipe_fixes_every_width(tmp_path: Path) -> None:
    first = made(tmp_path, bits=5.0)
    text = (first / "recipe.yaml").read_text()
    lines = [line.split(": ")[0] + ": 96x8" if "attn.q:" in line else line for line in text.splitlines()]
    wide = tmp_path / "wide.yaml"
    wide.write_text("\n".join(lines))
    artifact = open_artifact(made(tmp_path, name="wide", recipe=wide))
    for layer in range(TOY.layers):
        assert [band.bits for band in artifact.linears[f"layers.{layer}.attn.q"].bands] == [8]


def test_8_bits_everywhere_are_nearly_the_float_model(tmp_path: Path) -> None:
    artifact = open_artifact(made(tmp_path, bits=9.0))
    checkpoint = open_checkpoint(tmp_path / "model")
    assert {band.bits for spec in artifact.linears.values() for band in spec.bands} == {8}
    rotation = artifact.rotation
    assert rotation is not None
    from rockledge.formats.packing import dequantize

    found = rotation.inverse(dequantize(artifact.linear("embed")))
    expected = checkpoint.tensor("embed")
    assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()


def test_a_budget_below_the_narrowest_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match=r"nearest possible is [\d.]+ [kM]B \((\d\.\d+) bits") as caught:
        made(tmp_path, bits=2.5)
    nearest = float(str(caught.value).rsplit("(", 1)[1].split()[0])
    # What is named is possible indeed.
    artifact = open_artifact(made(tmp_path, bits=nearest + 0.001))
    assert artifact.bits_per_weight == pytest.approx(nearest, abs=0.002)


def test_a_board_leaves_room_for_what_it_can_hold(tmp_path: Path) -> None:
    artifact = open_artifact(made(tmp_path, fit="rk3588-8gb"))
    assert {band.bits for spec in artifact.linears.values() for band in spec.bands} == {8}
    with pytest.raises(UsageError, match="rk3588-8gb"):
        quantize(tmp_path / "model", tmp_path / "x", fit="rk9999")


def milliseconds(artifact: Artifact) -> float:
    """Of a decoded token on the usual board, from the bands as they are stored."""
    bands = [(band.bits, band.rows, spec.cols) for spec in artifact.linears.values() for band in spec.bands]
    return predict_decode(bands).ms_per_token


def test_a_token_takes_no_longer_than_asked_for(tmp_path: Path) -> None:
    wide = milliseconds(open_artifact(made(tmp_path, name="wide", milliseconds=1e3)))
    asked = 0.7 * wide
    path = made(tmp_path, milliseconds=asked)
    artifact = open_artifact(path)
    assert 0.9 * asked < milliseconds(artifact) <= 1.001 * asked
    assert read_recipe(path / "recipe.yaml").milliseconds == asked
    # A limit on bytes that binds earlier still binds.
    both = open_artifact(made(tmp_path, name="both", milliseconds=asked, bits=artifact.bits_per_weight - 0.4))
    assert both.bits_per_weight <= artifact.bits_per_weight - 0.4


def test_too_little_time_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match=r"too short .* on rk3588-8gb; the nearest possible is") as caught:
        made(tmp_path, milliseconds=1e-4)
    nearest = float(str(caught.value).split()[-2])
    assert milliseconds(open_artifact(made(tmp_path, milliseconds=nearest))) <= nearest


def test_fast_steps_are_in_the_recipe_and_make_the_same_bytes_again(tmp_path: Path) -> None:
    path = made(tmp_path, name="fast", bits=5.0, fast=True)
    assert read_recipe(path / "recipe.yaml").steps == FAST
    again = made(tmp_path, name="again", recipe=path / "recipe.yaml")
    assert (again / "model.safetensors").read_bytes() == (path / "model.safetensors").read_bytes()
    with pytest.raises(UsageError, match="leave one of them out"):
        made(tmp_path, name="both", fast=True, recipe=path / "recipe.yaml")


@pytest.mark.parametrize("stage", ["forward", "round", "check", "write"])
def test_an_interruption_leaves_nothing(stage: str, tmp_path: Path) -> None:
    source = synth_checkpoint("toy", tmp_path / "model")

    def interrupt(at: str, done: int, total: int) -> None:
        if at == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantize(source, tmp_path / "out", bits=5.0, tokens=TOKENS, progress=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_named_work_directory_is_kept(tmp_path: Path) -> None:
    made(tmp_path, bits=5.0, work=tmp_path / "work")
    assert (tmp_path / "work" / "prices.json").is_file()
    assert not list((tmp_path / "work").glob("*.state"))


def test_a_full_disk_is_told_before_anything_is_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(RockledgeError, match=r"No space left on device.*free some space"):
        made(tmp_path, bits=5.0)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_progress_is_told_of_every_stage_to_its_end(tmp_path: Path) -> None:
    seen: dict[str, list[tuple[int, int]]] = {}
    source = synth_checkpoint("toy", tmp_path / "model")
    quantize(
        source, tmp_path / "out", bits=5.0, tokens=TOKENS,
        progress=lambda stage, done, total: seen.setdefault(stage, []).append((done, total)),
    )  # fmt: skip
    assert list(seen) == ["forward", "round", "check", "write"]
    for steps in seen.values():
        assert [done for done, _ in steps] == list(range(1, steps[-1][1] + 1))


@pytest.mark.parametrize(
    "settings",
    [
        {"bits": -1.0},
        {"bits": float("nan")},
        {"milliseconds": 0.0},
        {"milliseconds": float("inf")},
        {"tokens": 0},
        {"bits": 4.0, "recipe": "r.yaml"},
    ],
)
def test_senseless_arguments_are_refused(settings: dict[str, Any], tmp_path: Path) -> None:
    source = synth_checkpoint("toy", tmp_path / "model")
    with pytest.raises(UsageError):
        quantize(source, tmp_path / "out", **settings)


def test_the_estimate_grows_with_the_work(tmp_path: Path) -> None:
    source = synth_checkpoint("toy", tmp_path / "model")
    small, large = (estimate(source, bits=5.0, tokens=tokens) for tokens in (2048, 2048000))
    assert small.bits_per_weight == pytest.approx(5.0, abs=0.01)
    assert large.seconds > small.seconds
    assert large.disk_bytes > small.disk_bytes


def test_the_public_function(tmp_path: Path) -> None:
    source = synth_checkpoint("toy", tmp_path / "model")
    report = rockledge.quantize(source, tmp_path / "out", bits=5.0, tokens=TOKENS)
    assert report.numbers["bits_per_weight"] <= 5.0


def rounded_widths(work: Path) -> set[str]:
    with np.load(work / "embed.npz") as arrays:
        return {name.split(".")[0] for name in arrays.files if name.endswith(".codes")}


def test_two_bits_are_made_where_the_budget_is_low_only(tmp_path: Path) -> None:
    made(tmp_path, name="usual", bits=6.0, work=tmp_path / "usual.work")
    assert rounded_widths(tmp_path / "usual.work") == {"3", "4", "8"}
    report = open_artifact(tmp_path / "usual").report
    assert report is not None
    least = next(row["nearest"] for row in report["budgets"] if row["nearest"] is not None)
    low = open_artifact(made(tmp_path, name="low", bits=least - 0.2, work=tmp_path / "low.work"))
    assert rounded_widths(tmp_path / "low.work") == {"2", "3", "4", "8"}
    low.verify()
    assert low.bits_per_weight <= least - 0.2
    assert 2 in {band.bits for spec in low.linears.values() for band in spec.bands}


def test_a_recipe_may_ask_for_two_bits(tmp_path: Path) -> None:
    text = (made(tmp_path, bits=6.0) / "recipe.yaml").read_text()
    lines = [line.split(": ")[0] + ": 96x2" if "attn.q:" in line else line for line in text.splitlines()]
    narrow = tmp_path / "narrow.yaml"
    narrow.write_text("\n".join(lines))
    artifact = open_artifact(made(tmp_path, name="narrow", recipe=narrow))
    assert [band.bits for band in artifact.linears["layers.0.attn.q"].bands] == [2]


def test_checking_prices_is_reported_and_changes_nothing(tmp_path: Path) -> None:
    plain, path = (made(tmp_path, name=str(check), bits=5.0, check_prices=check) for check in (False, True))
    unchecked, report = open_artifact(plain).report, open_artifact(path).report
    assert unchecked is not None
    assert report is not None
    assert unchecked["price_check"] is None
    check = report["price_check"]
    assert 10 < len(check["bands"]) <= 40
    assert check["rank_correlation"] > 0.8
    assert f"{check['rank_correlation']:.3f} (goal 0.8" in (path / "report.md").read_text()
    assert (plain / "model.safetensors").read_bytes() == (path / "model.safetensors").read_bytes()


def test_the_estimate_counts_the_check(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(estimate_module, "measured_speed", lambda device: Speed(1e6, 1e-9))
    source = synth_checkpoint("toy", tmp_path / "model")
    usual, checked = (estimate(source, bits=5.0, check_prices=check) for check in (False, True))
    assert checked.seconds > usual.seconds

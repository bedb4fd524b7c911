"""`prune` from end to end: transformers loads what it writes; what is redundant goes, and nothing changes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tests.model.checkpoints import byte_vocabulary
from tests.model.family_oracle import TOKENS, compare
from tests.pruning.conftest import Pruned
from tests.pruning.teachers import FAMILIES, GONE, LAYERS, redundant, teacher

from rockledge.model.checkpoint import open_checkpoint
from rockledge.pruning import targets
from rockledge.pruning.refit import Refit
from rockledge.quantization.float_model.forward import forward


@pytest.fixture
def coarse(monkeypatch: pytest.MonkeyPatch) -> float:
    """A tolerance that several shapes of a model with few steps are within, as a share of the target."""
    monkeypatch.setattr(targets, "TOLERANCE", 0.3)
    return 0.3


@pytest.mark.parametrize("family", FAMILIES)
def test_redundant_parts_go_and_logits_stay(family: str, tmp_path: Path, pruned: Pruned) -> None:
    source, model = teacher(family, tmp_path / "teacher", redundant)
    heads = {} if family == "olmo2" else {"heads": 2, "kv_heads": 2}  # its norms are over all heads
    out, report = pruned(source, layers=LAYERS - 1, hidden=44, ffn=64, **heads)
    assert [one["layer"] for one in report.numbers["layers"] if not one["kept"]] == [GONE]
    assert {channel for channel in range(64) if channel % 3} < set(report.numbers["hidden_channels"])
    with torch.no_grad():
        expected = model(TOKENS).logits
        loaded = transformers.AutoModelForCausalLM.from_pretrained(out).eval()
        # Norms of q and k over all heads add an epsilon that grows for the stream's sake.
        error = 3e-3 if family == "olmo2" else 1e-3
        torch.testing.assert_close(loaded(TOKENS).logits, expected, rtol=error, atol=error)
    compare(out, loaded)
    assert type(loaded) is type(model)
    assert report.numbers["written_loss"] == pytest.approx(report.numbers["teacher_loss"], abs=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_written_is_what_transformers_and_we_read(
    family: str, tmp_path: Path, pruned: Pruned
) -> None:
    source, _ = teacher(family, tmp_path / "teacher")
    out, report = pruned(source, layers=2, hidden=32, ffn=64, heads=2)
    loaded, info = transformers.AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not any(info.values()), info
    checkpoint = compare(out, loaded.eval())
    assert report.numbers["student"]["parameters"] == sum(p.numel() for p in loaded.parameters())
    kept = [one["layer"] for one in report.numbers["layers"] if one["kept"]]
    whole = open_checkpoint(source).config
    windows = tuple(whole.windows[i] for i in kept) if whole.windows else ()
    assert checkpoint.config.windows == (windows if any(windows) else ())
    assert checkpoint.config.unturned == tuple(n for n, i in enumerate(kept) if i in whole.unturned)


def test_scales_that_are_computed_from_sizes_stay(tmp_path: Path, pruned: Pruned) -> None:
    """MiniCPM's branches count less the more layers there are, and its logits the wider the stream is."""
    source, _ = teacher("llama-tied", tmp_path / "teacher", redundant)
    config = json.loads((source / "config.json").read_bytes())
    config |= {"model_type": "minicpm", "architectures": ["MiniCPMForCausalLM"]}
    config |= {"scale_emb": 3.0, "scale_depth": 1.4, "dim_model_base": 16}
    (source / "config.json").write_text(json.dumps(config))
    expected = forward(open_checkpoint(source), TOKENS)
    out, _ = pruned(source, layers=LAYERS - 1, hidden=44, ffn=64)
    torch.testing.assert_close(forward(open_checkpoint(out), TOKENS), expected, rtol=1e-3, atol=1e-3)


def test_a_multimodal_teacher_gives_a_language_model(tmp_path: Path, pruned: Pruned) -> None:
    source, model = teacher("gemma3", tmp_path / "teacher")
    text = json.loads((source / "config.json").read_bytes())
    whole = {"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"]}
    (source / "config.json").write_text(json.dumps({**whole, "text_config": text}))
    out, _ = pruned(source, layers=2, ffn=64)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(out).eval()
    assert type(loaded) is type(model)
    compare(out, loaded)


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_a_student_is_stored_as_its_teacher(kind: str, tmp_path: Path, pruned: Pruned) -> None:
    source, _ = teacher("qwen2", tmp_path / "teacher", lambda model: model.to(getattr(torch, kind)))
    out, _ = pruned(source, hidden=32)
    assert open_checkpoint(out).stored == f"safetensors, {kind}"
    compare(out, transformers.AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval())


def test_the_refit_brings_a_student_nearer(tmp_path: Path, pruned: Pruned) -> None:
    def certain(model: Any) -> None:
        model.lm_head.weight.mul_(4.0)

    source, model = teacher("llama", tmp_path / "teacher", certain)
    begun = torch.arange(3, 19)[:, None]
    only = {"suppress_tokens": [0, 1, 2, 79], "pad_token_id": 0}
    spoken = model.generate(begun, do_sample=True, max_new_tokens=200, min_new_tokens=200, **only)
    words, text = byte_vocabulary(80)[0], tmp_path / "spoken.txt"
    text.write_text("".join(words[i] for row in spoken.tolist() for i in row))
    _, report = pruned(source, ffn=64, calibration=text, tokens=2048)
    (tried,) = report.numbers["tried"]
    assert report.numbers["teacher_loss"] < tried["loss"] < tried["loss_cut"]
    assert report.numbers["written_loss"] == pytest.approx(tried["loss"], abs=1e-4)


def test_a_refit_that_does_not_help_is_left_out(
    tmp_path: Path, pruned: Pruned, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, _ = teacher("llama", tmp_path / "teacher", lambda model: model.lm_head.weight.mul_(4.0))
    noise = torch.Generator().manual_seed(0)
    monkeypatch.setattr(Refit, "change", lambda fit: torch.randn(fit.shape, generator=noise))
    _, report = pruned(source, ffn=64)
    (tried,) = report.numbers["tried"]
    assert not report.numbers["refitted"]
    assert report.numbers["written_loss"] == pytest.approx(tried["loss_cut"], abs=1e-4)
    assert tried["loss_cut"] < tried["loss"]
    assert "the refit would have given" in report.text


@pytest.mark.parametrize("again", range(4))
def test_any_legal_shape_is_written_and_read(again: int, tmp_path: Path, pruned: Pruned) -> None:
    draw = np.random.default_rng(again)
    family = list(FAMILIES)[int(draw.integers(len(FAMILIES)))]
    source, _ = teacher(family, tmp_path / "teacher")
    layers, along, ffn, kv, each = (int(draw.integers(1, most + 1)) for most in (3, 16, 96, 2, 2))
    heads = kv * each
    sizes = {"layers": layers, "hidden": along * heads, "ffn": ffn, "heads": heads, "kv_heads": kv}
    out, report = pruned(source, **sizes)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(out).eval()
    with torch.no_grad():
        expected = loaded(TOKENS).logits
    torch.testing.assert_close(forward(open_checkpoint(out), TOKENS), expected, rtol=1e-3, atol=1e-3)
    assert {key: report.numbers["student"][key] for key in sizes} == sizes


def test_a_target_is_met_by_the_shape_with_the_least_loss(
    tmp_path: Path, pruned: Pruned, coarse: float
) -> None:
    source, model = teacher("llama-tied", tmp_path / "teacher")
    target = int(0.7 * sum(p.numel() for p in model.parameters()))
    out, report = pruned(source, target_params=target, tokens=256)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(out)
    assert (1 - coarse) * target <= sum(p.numel() for p in loaded.parameters()) <= target
    losses = [min(one["loss"], one["loss_cut"]) for one in report.numbers["tried"]]
    assert len(losses) >= 2
    assert losses[[one["chosen"] for one in report.numbers["tried"]].index(True)] == min(losses)


@pytest.mark.usefixtures("drawn", "coarse")
def test_the_report_has_pictures(tmp_path: Path, pruned: Pruned) -> None:
    source, _ = teacher("llama-tied", tmp_path / "teacher")
    out, _ = pruned(source, tokens=256, body=0.7)
    words = (out / "pruning.md").read_text()
    assert json.loads((out / "pruning.json").read_text())["tried"]
    for name in ("importance.png", "shapes.png"):
        assert f"![{name}]({name})" in words
        assert (out / name).read_bytes().startswith(b"\x89PNG")

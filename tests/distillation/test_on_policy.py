"""The stage in which the student writes: its loss and gradient against their definition, that it comes closer
to the teacher on its own answers, and how a stopped one goes on. What needs TRL is skipped without it."""

import json
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.distillation.pair import Pair, made_model
from torch.nn.functional import log_softmax
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from rockledge.distillation.distil import distil
from rockledge.distillation.on_policy import TRL, check_trl
from rockledge.distillation.report import Report, report_text
from rockledge.errors import RockledgeError, TrainingError, UsageError
from rockledge.model.checkpoint import open_checkpoint

ROOT = Path(__file__).parents[2]


def _installed() -> str | None:
    try:
        return metadata.version("trl")
    except metadata.PackageNotFoundError:
        return None


needs_trl = pytest.mark.skipif(
    _installed() != TRL, reason=f"TRL {TRL} is not installed (make test-all installs it)"
)
STAGE = {"on_policy": 8, "on_policy_learning_rate": 8e-3}


def divergences(student: Any, teacher: Any, ids: torch.Tensor, first: int) -> np.ndarray:
    """KL of the student from the teacher at each token of [T] from `first` on, in double precision."""
    with torch.no_grad():
        own, taught = (log_softmax(m(input_ids=ids[None]).logits[0].double(), -1) for m in (student, teacher))
    return ((own.exp() * (own - taught)).sum(-1))[first - 1 : -1].numpy()


def own_divergence(student: Path, teacher: Path) -> float:
    """Its mean over what a student writes from the first token on, drawn by transformers."""
    models = [AutoModelForCausalLM.from_pretrained(place).eval() for place in (student, teacher)]
    torch.manual_seed(1)
    drawn = models[0].generate(
        torch.ones((128, 1), dtype=torch.long), do_sample=True, top_k=0, max_new_tokens=24, eos_token_id=None
    )
    return float(np.mean([divergences(*models, ids, 1) for ids in drawn]))


def curve(report: Report) -> list[list[float]]:
    own = report.numbers["on_policy"]
    return [[e["step"], e["reverse_kl"], e["entropy"], e["answer_tokens"]] for e in own["curve"]]


@pytest.fixture(scope="module")
def whole(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    """A run that nothing disturbs."""
    out = tmp_path_factory.mktemp("whole") / "student"
    return distil(pair.teacher, pair.student, out, pair.settings(**STAGE)), out


@needs_trl
def test_the_loss_is_the_reverse_divergence_of_what_was_written(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two prompts of different lengths with different answers, and its gradient. Nothing is sent."""
    from rockledge.distillation.on_policy_trainer import OnPolicyConfig, OnPolicyTrainer, PromptItems

    def sent(*arguments: Any, **named: Any) -> None:
        raise AssertionError("something was sent")

    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr("trl.trainer.base_trainer.send_telemetry", sent)
    models = [AutoModelForCausalLM.from_pretrained(place) for place in (pair.student, pair.teacher)]
    trainer = OnPolicyTrainer(
        ends=[2],
        model=models[0],
        teacher_model=models[1],
        processing_class=AutoTokenizer.from_pretrained(pair.student),
        train_dataset=PromptItems([[1, 5, 6]]),
        args=OnPolicyConfig(
            output_dir=str(tmp_path), use_cpu=True, bf16=False, gradient_checkpointing=False, report_to="none"
        ),
    )
    trainer.check_loss()
    samples = [([1, 70, 71, 72], [80, 90, 2]), ([1, 60], [7, 8, 9, 10, 11])]
    expected = np.concatenate([divergences(*models, torch.tensor(p + a), len(p)) for p, a in samples])
    batch = {
        "prompt_ids": torch.tensor([[1, 70, 71, 72], [2, 2, 1, 60]]),
        "prompt_mask": torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]]),
        "completion_ids": torch.tensor([[80, 90, 2, 2, 2], [7, 8, 9, 10, 11]]),
        "completion_mask": torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]),
        "num_items_in_batch": torch.tensor(8),
    }
    models[0].train()
    loss = trainer.compute_loss(models[0], batch)
    assert loss.item() == pytest.approx(expected.mean(), rel=1e-4)
    loss.backward()
    found = {name: p.grad.clone() for name, p in models[0].named_parameters()}
    models[0].zero_grad()
    total = torch.zeros((), dtype=torch.float64)
    for prompt, answer in samples:
        ids = torch.tensor([prompt + answer])
        own, taught = (log_softmax(m(input_ids=ids).logits[0].double(), -1) for m in models)
        total = total + (own.exp() * (own - taught.detach())).sum(-1)[len(prompt) - 1 : -1].sum()
    (total / 8).backward()
    for name, parameter in models[0].named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-3, atol=1e-6)


@needs_trl
def test_the_student_comes_closer_on_its_own_answers(
    whole: tuple[Report, Path], pair: Pair, tmp_path: Path
) -> None:
    """Beside a student of the first stage alone, on answers that transformers draws; all else of the
    checkpoint is as there."""
    report, out = whole
    distil(pair.teacher, pair.student, tmp_path / "first", pair.settings())
    before, after = (own_divergence(place, pair.teacher) for place in (tmp_path / "first", out))
    assert after < 0.85 * before
    own = report.numbers["on_policy"]
    assert own["held_out_after"] < 0.85 * own["held_out_before"]
    assert [entry["step"] for entry in own["curve"]] == list(range(1, 9))
    assert all(entry["answer_tokens"] <= 24 for entry in own["curve"])
    for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (out / name).read_bytes() == (tmp_path / "first" / name).read_bytes(), name
    shown = report_text(report.numbers, {"seconds": 1.0, "peak_memory": 1})
    assert "Then 8 steps on 32 answers of its own, of at most 24 tokens each." in shown
    assert f"{own['held_out_before']:.4f} | {own['held_out_after']:.4f} |" in shown


@needs_trl
def test_a_stopped_stage_goes_on_without_the_first(
    whole: tuple[Report, Path], pair: Pair, tmp_path: Path
) -> None:
    def progress(stage: str, done: int, total: int) -> None:
        if stage == "on policy" and done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distil(pair.teacher, pair.student, tmp_path / "out", pair.settings(**STAGE), progress=progress)
    assert not (tmp_path / "out").exists()
    seen: list[tuple[str, int]] = []
    report = distil(
        pair.teacher,
        pair.student,
        tmp_path / "out",
        pair.settings(**STAGE),
        progress=lambda stage, done, total: seen.append((stage, done)),
    )
    assert seen == [("on policy", step) for step in range(4, 9)]
    np.testing.assert_allclose(curve(report), curve(whole[0]), rtol=0, atol=1e-5)
    own, other = report.numbers["on_policy"], whole[0].numbers["on_policy"]
    assert own["held_out_before"] == pytest.approx(other["held_out_before"], abs=1e-5)
    assert own["held_out_after"] == pytest.approx(other["held_out_after"], abs=1e-5)
    weights = load_file(whole[1] / "model.safetensors")
    for name, tensor in load_file(tmp_path / "out" / "model.safetensors").items():
        torch.testing.assert_close(tensor, weights[name], rtol=0, atol=1e-5)


@needs_trl
def test_cached_logits_and_ways_of_drawing_in_the_files_change_nothing(
    whole: tuple[Report, Path], pair: Pair, tmp_path: Path
) -> None:
    """The stage asks the teacher itself, and the student's own draws are neither cooled nor cut."""
    student = tmp_path / "student"
    shutil.copytree(pair.student, student)
    drawing = {"bos_token_id": 1, "eos_token_id": 2, "do_sample": True, "temperature": 0.1, "top_k": 1}
    (student / "generation_config.json").write_text(json.dumps(drawing))
    settings = pair.settings(**STAGE, cache_logits=str(tmp_path / "cache"), evaluate_every=3)
    report = distil(pair.teacher, student, tmp_path / "out", settings)
    np.testing.assert_allclose(curve(report), curve(whole[0]), rtol=0, atol=1e-5)
    own, other = report.numbers["on_policy"], whole[0].numbers["on_policy"]
    assert own["held_out_after"] == pytest.approx(other["held_out_after"], abs=1e-5)
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text())["top_k"] == 1


@needs_trl
def test_an_adapter_learns_in_both_stages(pair: Pair, tmp_path: Path) -> None:
    """After a first stage on the data alone, from a teacher whose embedding is padded."""
    made_model(tmp_path / "teacher", hidden=48, layers=2, seed=0, vocabulary=304)
    settings = pair.settings(
        on_policy=8, on_policy_learning_rate=2e-2, lora=4, learning_rate=2e-2, data_weight=1.0
    )
    report = distil(tmp_path / "teacher", pair.student, tmp_path / "out", settings)
    own = report.numbers["on_policy"]
    assert own["held_out_after"] < 0.9 * own["held_out_before"]
    assert report.numbers["held_out_after"].keys() == {"loss", "data_loss"}
    assert open_checkpoint(tmp_path / "out").names() == open_checkpoint(pair.student).names()


@needs_trl
def test_a_loss_that_is_not_finite_stops_the_stage(pair: Pair, tmp_path: Path) -> None:
    """By a broken teacher, which the first stage does not ask, and by a rate at which the student breaks."""
    teacher = tmp_path / "teacher"
    shutil.copytree(pair.teacher, teacher)
    weights = load_file(teacher / "model.safetensors")
    weights["model.norm.weight"][:] = torch.nan
    save_file(weights, teacher / "model.safetensors", {"format": "pt"})
    settings = pair.settings(**STAGE, data_weight=1.0, held_out_share=0.0)
    said = "the loss is not finite in step 1 of 8 of the on-policy stage.*lower --on-policy-learning-rate"
    with pytest.raises(TrainingError, match=said):
        distil(teacher, pair.student, tmp_path / "out", settings)
    assert not (tmp_path / "out").exists()


@needs_trl
def test_a_family_that_trl_computes_otherwise_is_refused(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = LlamaForCausalLM.forward

    def scaled(self: Any, *arguments: Any, **named: Any) -> Any:
        found = forward(self, *arguments, **named)
        found.logits = found.logits * 3
        return found

    monkeypatch.setattr(LlamaForCausalLM, "forward", scaled)
    with pytest.raises(UsageError, match=r"TRL computes a divergence of .* does not suit this family"):
        distil(pair.teacher, pair.student, tmp_path / "out", pair.settings(**STAGE))


@needs_trl
def test_several_processes_and_a_student_of_more_tokens_are_refused(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_model(tmp_path / "student", hidden=32, layers=2, seed=1, vocabulary=304)
    with pytest.raises(UsageError, match="embeddings for 304 tokens and the teacher for 300"):
        distil(pair.teacher, tmp_path / "student", tmp_path / "out", pair.settings(**STAGE))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="runs in one process, not in 2; start it without torchrun"):
        distil(pair.teacher, pair.student, tmp_path / "out", pair.settings(**STAGE))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"quantization_aware": "4"}, "quantization-aware and on-policy do not go together"),
        ({"on_policy_answer": 48}, "answers of 48 tokens leave no room for a prompt in a sequence of 48"),
        ({"on_policy_learning_rate": 2.0}, "on-policy-learning-rate is 2, expected a number"),
    ],
)
def test_settings_that_make_no_sense_are_said(values: dict[str, Any], said: str, pair: Pair) -> None:
    with pytest.raises(UsageError, match=said):
        pair.settings(on_policy=8, **values)


@pytest.mark.parametrize(
    ("version", "said"),
    [
        (None, f"on-policy needs TRL {TRL}, which is not installed; run: .* install trl=={TRL}$"),
        ("0.9.6", f"on-policy needs TRL {TRL}, and 0.9.6 is installed; run: .* install trl=={TRL}$"),
    ],
)
def test_another_trl_or_none_is_said_before_anything_else(
    version: str | None, said: str, pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(name: str) -> str:
        if version is None:
            raise metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(metadata, "version", found)
    monkeypatch.setattr("rockledge.distillation.on_policy.version_info", (3, 11, 0))
    with pytest.raises(RockledgeError, match=said):
        distil(tmp_path / "none", pair.student, tmp_path / "out", pair.settings(**STAGE))
    monkeypatch.setattr("rockledge.distillation.on_policy.version_info", (3, 10, 4))
    with pytest.raises(RockledgeError, match=r"needs Python 3.11 or newer, and this is 3.10; make an env"):
        check_trl()


def test_the_extra_and_the_tested_set_have_the_same_trl() -> None:
    for file, line in (
        ("pyproject.toml", f"    \"trl=={TRL}; python_version >= '3.11'\","),
        ("requirements.txt", f'trl=={TRL} ; python_version >= "3.11"'),
    ):
        assert line in (ROOT / file).read_text(encoding="utf-8").split("\n")

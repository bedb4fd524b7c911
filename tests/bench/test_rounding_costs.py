"""The profile of roundings: whose answers it starts from, what its noise means, what it blames."""

import math
from pathlib import Path

import pytest
import torch
from tests.model.checkpoints import random_model, save

from bench import rounding_costs
from bench.greedy import PROMPTS
from bench.rounding_costs import Answers, Costs, float_answers
from rockledge.artifact import open_artifact
from rockledge.conversion.convert import convert
from rockledge.model.checkpoint import open_checkpoint
from rockledge.quantization.transforming.rotate import rotated
from rockledge.runtime.engine import Engine
from rockledge.synth import model_files

TOKENS = 6


def test_what_a_change_of_the_gap_leaves() -> None:
    own = torch.tensor([[2.0, 1.5, -3.0], [0.0, 0.25, -3.0]])  # margins of 0.5 and 0.25 nats
    costs = Costs(Answers([[1, 0], [1, 1]], [1, 1], 1, own))
    same = costs.row("same", lambda rows: own[rows] + 7)
    assert abs(same.kl_mean_nats) < 1e-6
    assert (same.noise_rms_nats, same.same, same.expected) == (0, 2, 2)
    changed = own + torch.tensor([[0.3, 0.0, 0.0], [0.3, 0.0, 0.0]])
    row = costs.row("changed", lambda rows: changed[rows])
    exact = torch.nn.functional.kl_div(
        changed.log_softmax(-1), own.log_softmax(-1), log_target=True, reduction="batchmean"
    )
    assert row.kl_mean_nats == pytest.approx(float(exact), rel=1e-4)
    assert row.noise_rms_nats == pytest.approx(0.3, rel=1e-5)
    assert row.same == 1
    kept = sum(0.5 * (1 + math.erf(margin / 0.3 / math.sqrt(2))) for margin in (0.5, 0.25))
    assert row.expected == pytest.approx(kept, rel=1e-4)
    assert costs.expected(costs.bearable()) == pytest.approx(7 / 8 * 2, abs=1e-3)


def test_a_profile_starts_from_the_float_models_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounding_costs, "PROMPTS", PROMPTS[:3])
    model = random_model("qwen3-tied", vocab_size=300)
    source = save(model, tmp_path / "model")
    for name, content in model_files(open_checkpoint(source).config).items():
        (source / name).write_bytes(content)
    checkpoint = open_checkpoint(source)
    out = convert(checkpoint, tmp_path / "out", bits=5)  # answers of its own soon
    with Engine.load(out, threads=1) as engine:
        answers = float_answers(engine, checkpoint, TOKENS)
        prompts = [engine.tokenizer.encode(prompt, bos=True) for prompt in PROMPTS[:3]]
    for prompt, row in zip(prompts, answers.rows, strict=True):
        with torch.no_grad():
            expected = model.generate(
                torch.tensor([prompt]), max_new_tokens=TOKENS, do_sample=False, eos_token_id=None
            )
        assert row == expected[0].tolist()
    found = {
        row.what: row.kl_mean_nats
        for row in rounding_costs.rounding_costs(
            open_artifact(out), rotated(checkpoint), answers, Costs(answers)
        )
    }
    assert found["weights"] > 5 * found["inputs"] > 500 * found["inputs in two planes"]
    assert found["everything"] > 0.5 * found["weights"]
    assert 0 < found["keys"] < found["everything"]

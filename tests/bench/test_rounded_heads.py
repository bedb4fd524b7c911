"""Heads rounded to int8: a loud channel of K is dear as stored, and cheap as the runtime has it."""

from pathlib import Path

import torch
from tests.model.checkpoints import random_model, save

from bench.accuracy_models import MODELS
from bench.accuracy_task import Task
from bench.rounded_heads import costs, rounded
from rockledge.model.checkpoint import open_checkpoint


def test_rounding_keeps_127_steps_of_the_largest() -> None:
    x = torch.tensor([[127.0, 1.4, -63.6, 0.0], [0.0, 0.0, 0.0, 0.0]])
    assert rounded(x).tolist() == [[127.0, 1.0, -64.0, 0.0], [0.0, 0.0, 0.0, 0.0]]


def test_a_loud_bias_of_k_costs_less_past_the_cache(tmp_path: Path) -> None:
    model = random_model("qwen2.5-tied")
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.k_proj.bias[5] = 300.0
    checkpoint = open_checkpoint(save(model, tmp_path))
    windows = [[3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8]]
    spec = next(iter(MODELS.values()))
    task = Task(spec, tmp_path, tmp_path, checkpoint, 1, tmp_path, windows, None, tmp_path, 1)
    found = costs(task)
    assert found["as the runtime"] < 0.5 * found["as stored"]
    assert 0 < found["as stored, values only"] < found["as stored"]

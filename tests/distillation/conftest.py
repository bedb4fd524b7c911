"""A small random teacher, a smaller student with its tokenizer, and text, made once."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("accelerate")
pytest.importorskip("peft")

from tests.distillation.pair import Pair, made_model


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    root = tmp_path_factory.mktemp("pair")
    generator = np.random.default_rng(0)
    words = "the quick brown fox jumps over lazy dog gateway valve spindle machine axis tool".split()
    lines = [json.dumps({"text": " ".join(generator.choice(words, 40))}) for _ in range(30)]
    (root / "data.jsonl").write_text("\n".join(lines), encoding="utf-8")
    made_model(root / "teacher", hidden=48, layers=2, seed=0)
    made_model(root / "student", hidden=32, layers=2, seed=1)
    return Pair(root / "teacher", root / "student", root / "data.jsonl")

"""A small random teacher, a smaller student with its tokenizer, and text, made once."""

import gc
import json
from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("accelerate")
pytest.importorskip("peft")

from tests.distillation.pair import Pair, made_model


@pytest.fixture(scope="module", autouse=True)
def frozen() -> Iterator[None]:
    """The Trainer collects garbage before every run; what the imports made is left out of that, which takes
    a second each time."""
    import peft.tuners.lora.model  # noqa: F401

    import rockledge.distillation.distil  # noqa: F401

    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    root = tmp_path_factory.mktemp("pair")
    generator = np.random.default_rng(0)
    words = ["the", "quick", "brown", "fox", "over", "lazy", "gateway", "valve", "spindle", "machine", "axis"]
    lines = [json.dumps({"text": " ".join(generator.choice(words, 24))}) for _ in range(36)]
    (root / "data.jsonl").write_text("\n".join(lines), encoding="utf-8")
    made_model(root / "teacher", hidden=48, layers=2, seed=0)
    made_model(root / "student", hidden=32, layers=2, seed=1)
    return Pair(root / "teacher", root / "student", root / "data.jsonl")

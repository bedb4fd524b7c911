"""Random models of one layer, in `cases/`: opened, changed, and compared with transformers."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from rockledge.errors import CheckpointError
from rockledge.model.checkpoint import Checkpoint, open_checkpoint
from rockledge.quantization.float_model.forward import forward

CASES = Path(__file__).parent / "cases"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
TOKENS = torch.arange(1, 257).reshape(2, 128)  # longer than the window of `f15_window`


def agree(path: Path, **options: Any) -> Checkpoint:
    """Opens `path` here and with transformers, and compares the logits."""
    checkpoint = open_checkpoint(path)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, **options)
    with torch.no_grad():
        expected, found = model(TOKENS).logits, forward(checkpoint, TOKENS)
    assert float(expected.std()) > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    return checkpoint


def changed(
    case: str,
    tmp_path: Path,
    config: Mapping[str, object] | None = None,
    *,
    without: tuple[str, ...] = (),
    weights: Any = None,
) -> Path:
    """A copy of a case with keys of config.json set and removed, and its tensors put through `weights`."""
    path = tmp_path / case
    shutil.copytree(CASES / case, path)
    stored = json.loads((path / "config.json").read_text())
    kept = {key: value for key, value in stored.items() if key not in without}
    (path / "config.json").write_text(json.dumps({**kept, **(config or {})}))
    if weights is not None:
        save_file(weights(load_file(path / WEIGHTS)), path / WEIGHTS, metadata={"format": "pt"})
    return path


def refused(path: Path, said: str) -> None:
    with pytest.raises(CheckpointError, match=said) as caught:
        open_checkpoint(path)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert not sentence.endswith(".")

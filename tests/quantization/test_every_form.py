"""Every form of a decoder the whole way, from a float checkpoint to the native runtime's logits at 8 bits,
against transformers; positions lie past windows and original contexts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.stats import norm
from tests.model.checkpoints import byte_vocabulary
from tests.model.family_oracle import gguf_twin, random_twin
from tests.quantization.forms import FORMS, Held, form
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from rockledge.model.checkpoint import open_checkpoint
from rockledge.quantization import pipeline
from rockledge.runtime.engine import Engine

TOKENS = np.random.default_rng(0).integers(0, 80, 200).tolist()  # windows are of 8 and 12, contexts of 16
# Prices are of weights and of inputs of linears. Queries, keys and values are rounded besides: three more
# roundings in a layer that has eleven. What is left is another text than the calibration's, and that a price
# is a second order.
OVER_PRICE = 4.0
LARGEST_KL = 0.02


@dataclass(frozen=True)
class WithTokenizer(Held):
    """A checkpoint in memory with a tokenizer of letters and no merges."""

    def files(self) -> dict[str, bytes]:
        words = [*byte_vocabulary(80)[0][:-1], "<last>"]
        tokenizer = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, []))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        return {"tokenizer.json": tokenizer.to_str().encode()}


Quantised = Callable[[Held], Path]


@pytest.fixture
def quantised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Quantised:
    """`quantised(checkpoint)`: its artifact at 8 bits, by the steps that take least time."""
    # Drawing widths that are all the same takes half of it.
    monkeypatch.setattr(pipeline, "widths_picture", lambda plan, prices: None)
    letters = np.random.default_rng(1).integers(ord("a"), ord("z") + 1, 4000, np.uint8)
    (tmp_path / "text.txt").write_bytes(letters.tobytes())

    def made(held: Held) -> Path:
        checkpoint = WithTokenizer(held.config, held.tensors)
        text, out = tmp_path / "text.txt", tmp_path / "artifact"
        pipeline.quantize(checkpoint, out, bits=9.0, fast=True, tokens=768, calibration=text, force=True)
        return out

    return made


def divergences(expected: npt.NDArray[np.float32], found: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """KL of each token, nats, of logits [tokens, vocab]."""
    p, q = (torch.log_softmax(torch.tensor(logits).double(), dim=-1) for logits in (expected, found))
    divergence: npt.NDArray[np.float64] = (p.exp() * (p - q)).sum(dim=-1).numpy()
    return divergence


def flips_expected(logits: npt.NDArray[np.float32], kl: float) -> float:
    """Tokens at which independent errors of the logits that cost `kl` nats a token, to second order those of
    variance 2 `kl`, exchange the two that are largest."""
    second, first = np.sort(logits, axis=1)[:, -2:].T
    return float(norm.cdf(-(first - second) / (2 * kl**0.5)).sum())


def agree(path: Path, model: Any) -> None:
    """The artifact's logits are as near to the transformers model's as rounding explains."""
    with torch.no_grad():
        expected = model(torch.tensor([TOKENS])).logits[0].numpy()
    with Engine.load(path, threads=1, ctx=len(TOKENS)) as engine:
        report = engine.artifact.report
        found = engine.logits(TOKENS)
    assert report is not None
    assert {band.bits for spec in engine.artifact.linears.values() for band in spec.bands} == {8}
    bound = OVER_PRICE * report["kl_priced_nats"]
    assert bound < LARGEST_KL
    kl = divergences(expected, found)
    assert kl.mean() < bound
    assert kl[-50:].mean() < bound
    flips = (expected.argmax(axis=1) != found.argmax(axis=1)).sum()
    likely = flips_expected(expected, bound)
    assert flips <= likely + 3 * likely**0.5 + 1


@pytest.mark.parametrize("name", FORMS)
def test_logits_of_every_form_at_8_bits_are_near_those_of_transformers(
    name: str, quantised: Quantised
) -> None:
    held, model = form(name)
    agree(quantised(held), model)


ROTARY = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
    "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e6},
}
# Class in transformers, its own settings, architecture in GGUF, its metadata there, what is added to gains.
IN_GGUF: dict[str, tuple[str, dict[str, Any], str, Mapping[str, Any], float]] = {
    "gemma2": (
        "Gemma2",
        {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 8, "num_hidden_layers": 2,
         "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
        "gemma2",
        {"attention.sliding_window": 8, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
        1.0,
    ),
    "gemma3": (
        "Gemma3Text",
        {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 8, "num_hidden_layers": 3,
         "sliding_window_pattern": 2, "rope_parameters": ROTARY},
        "gemma3",
        {"attention.sliding_window": 8, "attention.sliding_window_pattern": [True, False, True],
         "rope.freq_base": 1e6, "rope.freq_base_swa": 100.0, "rope.scaling.type": "linear",
         "rope.scaling.factor": 4.0},
        1.0,
    ),
    "olmo2": ("Olmo2", {"rms_norm_eps": 1e-6}, "olmo2", {"rope.freq_base": 10000.0}, 0.0),
}  # fmt: skip


@pytest.mark.parametrize("name", IN_GGUF)
def test_artifacts_from_gguf_files_are_as_near(name: str, tmp_path: Path, quantised: Quantised) -> None:
    kind, own, architecture, metadata, offset = IN_GGUF[name]
    model = random_twin(kind, **own)
    path = gguf_twin(tmp_path / "tiny.gguf", model, architecture, metadata, gain_offset=offset)
    opened = open_checkpoint(path)
    held = Held(opened.config, {name: opened.tensor(name) for name in opened.names()})
    agree(quantised(held), model)

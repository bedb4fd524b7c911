"""The windowed reference equals the plain forward, reads weights once, and answers other tokens too."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rockledge.eval.divergence import divergence
from rockledge.model.config import ModelConfig
from rockledge.quantization.float_model.forward import forward
from rockledge.quantization.float_model.reference_logits import ReferenceLogits

CONFIG = ModelConfig(
    family="llama",
    hidden=32,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=8,
    ffn=48,
    vocab=61,
    norm_eps=1e-5,
    rope_theta=10000.0,
    rope_divisors=(1.0,) * 4,
    tied=True,
    context=64,
    qkv_bias=False,
    qk_norm=False,
    bos=None,
    eos=(0,),
)


class MemoryCheckpoint:
    """A random checkpoint that counts how often each tensor is read."""

    path = Path("memory")
    stored = "memory"
    config = CONFIG

    def __init__(self) -> None:
        kv, hidden, ffn = 16, CONFIG.hidden, CONFIG.ffn
        shapes: dict[str, tuple[int, ...]] = {"embed": (CONFIG.vocab, hidden), "final_norm": (hidden,)}
        for i in range(CONFIG.layers):
            block = {
                "attn.norm": (hidden,), "attn.q": (hidden, hidden), "attn.k": (kv, hidden),
                "attn.v": (kv, hidden), "attn.o": (hidden, hidden), "ffn.norm": (hidden,),
                "ffn.gate": (ffn, hidden), "ffn.up": (ffn, hidden), "ffn.down": (hidden, ffn),
            }  # fmt: skip
            shapes |= {f"layers.{i}.{name}": shape for name, shape in block.items()}
        generator = np.random.default_rng(3)
        self._tensors = {
            name: generator.normal(1 if "norm" in name else 0, 0.2, shape).astype(np.float32)
            for name, shape in shapes.items()
        }
        self.reads: Counter[str] = Counter()

    def names(self) -> list[str]:
        return list(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._tensors[name].shape

    def tensor(self, name: str) -> NDArray[np.float32]:
        self.reads[name] += 1
        return self._tensors[name].copy()

    def files(self) -> dict[str, bytes]:
        return {}


@pytest.fixture
def windows() -> list[list[int]]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, CONFIG.vocab, 12).tolist() for _ in range(19)]


def test_announced_windows_equal_the_plain_forward(windows: list[list[int]]) -> None:
    checkpoint = MemoryCheckpoint()
    seen: list[tuple[int, int]] = []
    reference = ReferenceLogits(checkpoint, windows, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]
    assert max(checkpoint.reads.values()) <= 2, "the embedding twice (input and head), everything else once"
    with torch.no_grad():
        expected = forward(MemoryCheckpoint(), torch.tensor(windows)).numpy()
    for window, logits in zip(windows, expected, strict=True):
        np.testing.assert_allclose(reference(window), logits, atol=1e-5)


def test_other_tokens_are_run_on_the_spot(windows: list[list[int]]) -> None:
    reference = ReferenceLogits(MemoryCheckpoint(), windows[:1])
    with torch.no_grad():
        expected = forward(MemoryCheckpoint(), torch.tensor([windows[5][:7]])).numpy()[0]
    np.testing.assert_allclose(reference(windows[5][:7]), expected, atol=1e-5)


def test_windows_may_differ_in_length(windows: list[list[int]]) -> None:
    cut = [window[: 3 + i % 5] for i, window in enumerate(windows)]
    checkpoint = MemoryCheckpoint()
    reference = ReferenceLogits(checkpoint, cut)
    assert max(checkpoint.reads.values()) <= 2
    for window in cut:
        with torch.no_grad():
            expected = forward(MemoryCheckpoint(), torch.tensor([window])).numpy()[0]
        np.testing.assert_allclose(reference(window), expected, atol=1e-5)


def test_kept_states_are_not_computed_again(windows: list[list[int]], tmp_path: Path) -> None:
    kept = tmp_path / "states.npy"
    first = ReferenceLogits(MemoryCheckpoint(), windows, kept=kept)
    checkpoint = MemoryCheckpoint()
    second = ReferenceLogits(checkpoint, windows, kept=kept)
    assert not any(name.startswith("layers.") for name in checkpoint.reads)
    for window in windows:
        assert (first(window) == second(window)).all()
    assert list(tmp_path.iterdir()) == [kept]


def test_it_is_what_eval_asks_for(windows: list[list[int]]) -> None:
    text = [token for window in windows for token in window]
    reference = ReferenceLogits(MemoryCheckpoint(), windows)
    report = divergence(reference, ReferenceLogits(MemoryCheckpoint()), text, window=12)
    assert report.windows == 19
    assert report.kl_mean_nats == pytest.approx(0, abs=1e-9)

"""The board's forecast of memory against what the runtime really takes, for heads of every kind of size."""

from dataclasses import replace
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rockledge.artifact import open_artifact
from rockledge.board.boards import find_board
from rockledge.board.memory import arena_bytes, cache_bytes, kv_bytes, pages_of, plan_memory
from rockledge.model.config import ModelConfig
from rockledge.runtime.engine import Engine
from rockledge.runtime.program import build_program
from rockledge.synth import SHAPES, synth_artifact

HEADS = (64, 80, 96, 100, 128, 256)
INPUTS = ("attn.q", "attn.k", "attn.v", "attn.o", "ffn.gate", "ffn.up", "ffn.down")
MOST_OVER = 7 / 6
"""How much larger the forecast of an arena may be than the arena where all inputs have two planes."""


def shape_of(head_dim: int, family: str = "llama", **sizes: Any) -> ModelConfig:
    biased, normed = family == "qwen2", family == "qwen3"
    return replace(
        SHAPES["toy"], family=family, qkv_bias=biased, qk_norm=normed, head_dim=head_dim,
        rope_divisors=(1.0,) * (head_dim // 2), context=8192, **sizes,
    )  # fmt: skip


@pytest.mark.parametrize("head_dim", HEADS)
def test_what_an_engine_takes_is_what_was_forecast(head_dim: int, tmp_path: Path) -> None:
    config = shape_of(head_dim)
    path = synth_artifact(config, tmp_path / "model", bits=4)
    for context in (1, 33, 1000, 8192):
        with Engine.load(path, threads=2, ctx=context, npu="off") as engine:
            rows = engine.footprint.step_tokens
            cache = cache_bytes(config, context, rows)
            assert engine.native_bytes == engine.footprint.bytes - engine.artifact.tensor_bytes
            assert engine.pages == pages_of(context)
            assert engine.cache_bytes_read(9) == kv_bytes(config, 9)
            taken = engine.native_bytes - cache
            assert taken <= arena_bytes(config, rows, context, 2)


@pytest.mark.parametrize("head_dim", HEADS)
def test_the_cache_is_counted_to_the_byte(head_dim: int, tmp_path: Path) -> None:
    plan = build_program(open_artifact(synth_artifact(shape_of(head_dim), tmp_path / "model", bits=4)))
    for context in (1, 32, 33, 5000):
        assert plan.memory(32, context, 1).cache == cache_bytes(plan.config, context, 32)


@pytest.mark.parametrize("windows", [(1, 0), (512, 512), (40, 1000)])
def test_windows_are_counted_to_the_byte(windows: tuple[int, int], tmp_path: Path) -> None:
    """By hand: a window of w and a step of r see w + r - 1 positions, which lie in at most
    ceil((w + r - 2) / 32) + 1 pages; there is room for four sequences, or for the whole context."""
    config = shape_of(64, windows=windows)
    assert config.layers == 2
    plan = build_program(open_artifact(synth_artifact(config, tmp_path / "model", bits=4)))
    page = 32 * config.kv_heads * 2 * (64 + 4)
    for rows, context in product((1, 32, 256), (1, 33, 1000, 8192)):
        whole = -(-context // 32)
        pages = [min(whole, 4 * (-(-(w + rows - 2) // 32) + 1)) if w else whole for w in windows]
        taken = plan.memory(rows, context, 2)
        assert taken.cache == sum(pages) * page == cache_bytes(config, context, rows)
        assert taken.working <= arena_bytes(config, rows, context, 2)
    seen = [min(w or 8192, 8192) for w in windows]
    assert kv_bytes(config, 8192) == sum(seen) * page // 32


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("head_dim", HEADS)
def test_the_forecast_of_an_arena_is_close(head_dim: int, family: str, tmp_path: Path) -> None:
    config = shape_of(head_dim, family, hidden=4 * head_dim, heads=4, kv_heads=2, ffn=14 * head_dim, layers=1)
    path = synth_artifact(config, tmp_path / "model", bits=8, two_planes=INPUTS)
    plan = build_program(open_artifact(path))
    for rows, context, threads in product((256, 512), (32, 8192), (1, 4)):
        taken = plan.memory(rows, context, threads).working
        assert taken <= arena_bytes(config, rows, context, threads) <= MOST_OVER * taken


@settings(max_examples=12)
@given(
    st.sampled_from(["llama", "qwen2", "qwen3"]), st.integers(1, 130), st.integers(1, 4), st.integers(1, 4),
    st.integers(1, 300), st.integers(1, 600), st.sampled_from([(), ("attn.o",), INPUTS]), st.integers(1, 600),
    st.integers(1, 5000), st.integers(1, 5), st.sampled_from([(), (0, 30), (700, 30)]),
)  # fmt: skip
def test_no_arena_is_above_its_forecast(
    family: str, pairs: int, kv_heads: int, shared: int, hidden: int, ffn: int, two: tuple[str, ...],
    rows: int, context: int, threads: int, windows: tuple[int, ...],
) -> None:  # fmt: skip
    heads = {"heads": shared * kv_heads, "kv_heads": kv_heads, "layers": len(windows) or 1}
    angles = {"windows": windows, "window_rope_theta": 500.0 if windows else 0.0}
    config = shape_of(2 * pairs, family, hidden=hidden, ffn=ffn, tied=bool(rows % 2), **heads, **angles)
    with TemporaryDirectory() as folder:
        path = synth_artifact(config, Path(folder) / "model", bits=8, two_planes=two)
        plan = build_program(open_artifact(path))
        assert plan.memory(rows, context, threads).working <= arena_bytes(config, rows, context, threads)


def test_the_plan_of_a_board_holds_both_programs() -> None:
    config, board = SHAPES["8b"], find_board("rk3588-8gb")
    plan = plan_memory(board, config, 8192, weights_bytes=4_000_000_000, step_rows=512)
    assert plan.kv_bytes == cache_bytes(config, 8192, 512)
    assert plan.arena_bytes == sum(arena_bytes(config, rows, 8192, 4) for rows in (512, 32))

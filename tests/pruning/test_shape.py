"""Shapes: heads that can be cut, steps of widths, configurations of what stays."""

from dataclasses import replace

import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st

from rockledge.errors import UsageError
from rockledge.model.known_shapes import KNOWN_SHAPES
from rockledge.pruning.shape import (
    Shape,
    check_widths,
    grain,
    head_counts,
    hidden_fits,
    kv_heads_for,
    parameters,
    pruned_config,
    shape_of,
)
from rockledge.pruning.targets import Space, Target, shapes_with

LLAMA3 = KNOWN_SHAPES["llama-3-8b"].config  # 32 heads over 8


def test_steps_are_powers_of_two_between_a_tile_and_what_rotations_like() -> None:
    assert [grain(width) for width in (64, 576, 1536, 4096, 14336)] == [32, 32, 32, 128, 256]


def test_groups_stay_where_they_can() -> None:
    assert {count: kv_heads_for(LLAMA3, count) for count in (24, 16, 8, 28, 4)} == {
        24: 8, 16: 8, 8: 8, 28: 7, 4: 4,
    }  # fmt: skip
    assert kv_heads_for(LLAMA3, 16, 4) == 4
    with pytest.raises(UsageError, match="the nearest that can are 24 and 28"):
        kv_heads_for(LLAMA3, 26)
    with pytest.raises(UsageError, match="16 heads over 3 key/value heads cannot be cut"):
        kv_heads_for(LLAMA3, 16, 3)


@given(st.sampled_from(sorted(head_counts(LLAMA3))))
def test_every_count_is_legal(count: int) -> None:
    kv = head_counts(LLAMA3)[count]
    assert count % kv == 0
    assert count // kv <= 4
    assert kv <= 8


def test_known_students_have_their_published_sizes() -> None:
    """Llama-3.1-Minitron-4B-Width (arXiv 2408.11796): 4.5b parameters, and half the layers likewise."""
    width = Shape(32, 3072, 9216, 32, 8)
    depth = Shape(16, 4096, 14336, 32, 8)
    assert parameters(LLAMA3, width) == pytest.approx(4.5e9, rel=0.01)
    assert parameters(LLAMA3, depth) == pytest.approx(4.5e9, rel=0.01)


def test_windows_and_turns_go_with_their_layers() -> None:
    gemma, smol = KNOWN_SHAPES["gemma-3-1b"].config, KNOWN_SHAPES["smollm3-3b"].config
    kept = (4, 5, 6, 25)
    made = pruned_config(gemma, Shape(4, 1152, 6912, 4, 1), kept)
    assert made.windows == tuple(gemma.windows[layer] for layer in kept) == (512, 0, 512, 512)
    assert pruned_config(gemma, Shape(1, 1152, 6912, 4, 1), (5,)).window_rope_theta == 0
    assert smol.unturned[:2] == (3, 7)
    assert pruned_config(smol, Shape(3, 2048, 11008, 16, 4), (0, 7, 8)).unturned == (1,)


def test_hidden_sizes_are_those_that_transformers_takes() -> None:
    smol = KNOWN_SHAPES["smollm2-135m"].config
    with pytest.raises(UsageError, match=r"448 is not a multiple of 9 heads, .* give --hidden 441 or 450"):
        check_widths(smol, Shape(30, 448, 1536, 9, 3))
    for hidden, heads in ((448, 9), (441, 9), (480, 6)):
        settings = {
            "hidden_size": hidden,
            "num_attention_heads": heads,
            "num_key_value_heads": 3,
            "head_dim": 64,
        }
        refused = None
        try:
            transformers.LlamaConfig(**settings)
        except Exception as error:  # a class of huggingface_hub that is not a ValueError
            refused = error
        assert hidden_fits(smol, Shape(30, hidden, 1536, heads, 3)) == (refused is None)


def test_long_rope_wants_all_heads_together() -> None:
    phi = replace(KNOWN_SHAPES["phi-3-mini"].config, rope_long_divisors=(2.0,) * 48)
    assert hidden_fits(phi, Shape(32, 24 * 96, 8192, 24, 24))
    with pytest.raises(UsageError, match=r"24 heads of 96, expected 2304 \(LongRoPE\)"):
        check_widths(phi, Shape(32, 3072, 8192, 24, 24))
    for one in shapes_with(Space(phi), Target(2_500_000_000)):
        assert one.shape.hidden == 96 * one.shape.heads


def test_widths_beyond_the_teacher_and_beside_tiles() -> None:
    whole = shape_of(LLAMA3)
    assert check_widths(LLAMA3, whole) == []
    assert check_widths(LLAMA3, Shape(32, 3072, 9216, 32, 8)) == []
    (note,) = check_widths(LLAMA3, Shape(32, 3040, 9240, 32, 8))
    assert note.startswith("ffn 9240: not in steps of 32")
    with pytest.raises(UsageError, match="--ffn is 20000, expected 1 to the teacher's 14336"):
        check_widths(LLAMA3, Shape(32, 4096, 20000, 32, 8))

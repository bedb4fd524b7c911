"""What the native core refuses: programs that do not fit together, and steps that point outside of it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.native.one_op import (
    NO_CACHE,
    float_buffer,
    int8_buffer,
    native_bands,
    open_step,
    random_linear,
    step_of,
    supported_kernels,
)

from rockledge.errors import NativeError
from rockledge.runtime import native
from rockledge.runtime.choices import KERNELS
from rockledge.runtime.native import OpCode
from rockledge.runtime.native_step import Batch, Step

CACHE = native.Shape(
    4, heads=4, kv_heads=2, head_dim=16, page_tokens=16, context=48, pools=(native.Pool(2, 3),)
)


def linear_parts() -> tuple[list[native.Op], list[native.Band], list[native.Buffer], native.Shape]:
    bands = native_bands(random_linear(np.random.default_rng(0), 40, [(8, 4), (8, 8)]))
    buffers = [int8_buffer(40, 0), float_buffer(1, 1), float_buffer(16, 2), float_buffer(16, 3)]
    return [native.Op(OpCode.LINEAR, (0, 1, 2), (3,), bands=2)], bands, buffers, native.Shape(4, **NO_CACHE)


def create(ops: Any, bands: Any, buffers: Any, shape: Any, **options: Any) -> Step:
    return open_step(ops, bands, buffers, shape, **options)


def attention_parts() -> tuple[list[native.Op], list[native.Band], list[native.Buffer], native.Shape]:
    buffers = [float_buffer(8 * 16, 0), int8_buffer(4 * 32, 1), float_buffer(4, 2), float_buffer(64, 3)]
    ops = [
        native.Op(
            OpCode.ROPE_KV,
            (0,),
            (1, 2),
            dim=(1, 0, 16),
            real=(1e-5, 1.0, 0.25),
            weight=(np.ones(8, np.float32),),
        ),
        native.Op(OpCode.ATTENTION, (1, 2), (3,), dim=(1,), real=(0.25,)),
    ]
    return ops, [], buffers, CACHE


def biased_parts() -> tuple[list[native.Op], list[native.Band], list[native.Buffer], native.Shape]:
    ops, bands, buffers, shape = attention_parts()
    turns, bias = np.ones(8, np.float32), np.ones(32, np.float32)
    ops = [
        replace(ops[0], outputs=(1, 2, 4), weight=(turns, None, None, bias)),
        replace(ops[1], inputs=(1, 2, 4), weight=(turns, None, None, bias)),
    ]
    return ops, bands, [*buffers, float_buffer(64, 4)], shape


def test_what_fits_is_accepted() -> None:
    create(*linear_parts()).close()
    create(*attention_parts()).close()
    create(*biased_parts()).close()


@pytest.mark.parametrize("number", [0, 1])
def test_a_score_bias_and_its_terms_come_together(number: int) -> None:
    ops, bands, buffers, shape = biased_parts()
    places = ("outputs", "inputs")[number]

    def refused(message: str, **change: Any) -> None:
        with pytest.raises(NativeError, match=message):
            create([*ops[:number], replace(ops[number], **change), *ops[number + 1 :]], bands, buffers, shape)

    refused(f"operation {number} has a score bias and no buffer", **{places: (1, 2)})
    refused(f"operation {number} has a buffer for the terms", weight=ops[number].weight[:1])
    refused("the terms of the score bias has kind", **{places: (1, 2, 2)})
    refused("lacks its rotary frequencies", weight=(None, *ops[number].weight[1:]))


@pytest.mark.parametrize("change", [{"bits": 5}, {"rows": 0}, {"cols": 1 << 20}, {"out_column": -1}])
def test_impossible_bands(change: dict[str, int]) -> None:
    ops, bands, buffers, shape = linear_parts()
    enough = np.zeros(1 << 24, np.uint8)
    with pytest.raises(NativeError, match="band 0"):
        create(ops, [replace(bands[0], **change, codes=enough, index=enough), bands[1]], buffers, shape)


def test_bands_without_tables_or_alignment() -> None:
    ops, bands, buffers, shape = linear_parts()
    with pytest.raises(NativeError, match="lacks codes"):
        create(ops, [replace(bands[0], tables=None), bands[1]], buffers, shape)
    shifted = np.zeros(bands[0].codes.size + 1, np.uint8)
    shifted = shifted[1:] if shifted.ctypes.data % 64 == 0 else shifted
    with pytest.raises(NativeError, match="64 bytes"):
        create(ops, [replace(bands[0], codes=shifted), bands[1]], buffers, shape)


def test_arrays_shorter_than_their_band_never_reach_the_core() -> None:
    ops, bands, buffers, shape = linear_parts()
    for name in ("codes", "index", "tables", "scale"):
        short = getattr(bands[0], name).reshape(-1)[:-1]
        with pytest.raises(NativeError, match=name):
            create(ops, [replace(bands[0], **{name: short}), bands[1]], buffers, shape)


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": (9, 1, 2)},
        {"inputs": (2, 1, 2)},
        {"inputs": (0, 2, 2)},
        {"inputs": (0, 1, 1)},
        {"outputs": (1,)},
        {"outputs": (-2,)},
        {"outputs": (-1,)},
        {"bands": 3},
        {"bands": 0},
        {"first_band": -1},
        {"first_band": 2},
        {"code": OpCode.NORM_QUANT},
        {"code": OpCode.ROTATE},
    ],
)
def test_linear_operations_that_do_not_fit(change: dict[str, Any]) -> None:
    ops, bands, buffers, shape = linear_parts()
    with pytest.raises(NativeError, match="operation 0"):
        create([replace(ops[0], **change)], bands, buffers, shape)


NOT_A_NUMBER, INFINITE = float("nan"), float("inf")
TURNS = np.ones(8, np.float32)


@pytest.mark.parametrize(
    ("number", "change", "sentence"),
    [
        (0, {"dim": (1, 0, 15)}, "turns 15 of the 16 channels"),
        (0, {"dim": (1, 0, 18)}, "turns 18 of the 16 channels"),
        (0, {"dim": (1, 0, -2)}, "turns -2 of the 16 channels"),
        (0, {"dim": (1, 0, 0)}, "has rotary frequencies, but no channels that turn"),
        (0, {"weight": ()}, "lacks its rotary frequencies"),
        (0, {"dim": (1, 0, 16, 2)}, "norms of kind 2, expected 0 .* or 1"),
        (0, {"real": (-1.0, 1.0)}, "eps -1, expected a number from 0"),
        (0, {"real": (1e-5, 0.0)}, "factor on cosines and sines 0, expected a number above 0"),
        (0, {"real": (1e-5, INFINITE)}, "factor on cosines and sines inf"),
        (0, {"real": (1e-5, 1.0, 0.25, -0.1, 8.0)}, "growth -0.1, expected a number from 0"),
        (0, {"real": (1e-5, 1.0, 0.25, 0.1)}, "growth length 0, expected a number above 0"),
        (1, {"real": ()}, "operation 1 has the scale 0, expected a number above 0"),
        (1, {"real": (NOT_A_NUMBER,)}, "scale nan"),
        (1, {"real": (0.25, -1.0)}, "softcap -1, expected a number from 0"),
    ],
)
def test_turns_and_scores_that_cannot_be(number: int, change: dict[str, Any], sentence: str) -> None:
    ops, bands, buffers, shape = attention_parts()
    ops[number] = replace(ops[number], **change)
    with pytest.raises(NativeError, match=sentence):
        create(ops, bands, buffers, shape)


def test_heads_need_not_turn() -> None:
    ops, bands, buffers, shape = attention_parts()
    create([replace(ops[0], dim=(1, 0, 0), weight=()), ops[1]], bands, buffers, shape).close()


def test_score_biases_of_channels_that_do_not_turn() -> None:
    (turn, attend), bands, buffers, shape = biased_parts()
    bias = np.zeros((2, 16), np.float32)
    bias[1, 11] = 1
    partly = replace(turn, dim=(1, 0, 12), weight=(TURNS, None, None, bias))
    attend = replace(attend, weight=(TURNS, None, None, bias))
    create([partly, attend], bands, buffers, shape).close()
    with pytest.raises(NativeError, match="score bias in channel 11 of a head, of which 10 turn"):
        create([replace(partly, dim=(1, 0, 10)), attend], bands, buffers, shape)
    normed = (TURNS, None, np.ones(16, np.float32), bias)
    with pytest.raises(NativeError, match="score bias of keys that a norm divides"):
        create([replace(partly, weight=normed), attend], bands, buffers, shape)
    still = replace(turn, dim=(1, 0, 0), weight=(None, None, None, bias))
    with pytest.raises(NativeError, match="score bias, but no channels that turn"):
        create([still, attend], bands, buffers, shape)
    with pytest.raises(NativeError, match="the scale 0, expected a number above 0"):
        create([replace(partly, real=(1e-5, 1.0)), attend], bands, buffers, shape)
    with pytest.raises(NativeError, match="frequencies that no operation before it turns by"):
        create([partly, replace(attend, weight=(TURNS.copy(), None, None, bias))], bands, buffers, shape)


@pytest.mark.parametrize("change", [{"dim": (0, 0, 12)}, {"real": (1e-5, 1.5, 0.25)}])
def test_frequencies_stand_for_one_table_of_angles(change: dict[str, Any]) -> None:
    ops, bands, buffers, shape = attention_parts()
    turn = replace(ops[0], weight=(TURNS,))
    create([turn, ops[1], replace(turn, dim=(0, 0, 16))], bands, buffers, shape).close()
    with pytest.raises(NativeError, match="operations 0 and 2 share rotary frequencies, but turn 16 and"):
        create([turn, ops[1], replace(turn, **change)], bands, buffers, shape)


@pytest.mark.parametrize(
    ("code", "change", "sentence"),
    [
        (OpCode.QUANT, {"dim": (12,)}, "block of 12 does not divide 48"),
        (OpCode.NORM_QUANT, {"dim": (32,)}, "block of 32 does not divide 48"),
        (OpCode.NORM_QUANT, {"dim": (-16,)}, "block of -16 does not divide 48"),
        (OpCode.NORM_QUANT, {"real": (-1e-5,)}, "eps"),
        (OpCode.GATED_QUANT, {"outputs": (3, 2), "dim": (16,)}, "block of 16 does not divide 24"),
        (OpCode.GATED_QUANT, {"outputs": (3, 2), "dim": (8, 2)}, "activation 2 of 48 channels, expected 0"),
        (OpCode.NORM_ADD, {"outputs": (4,)}, "residual is buffer -1"),
        (OpCode.NORM_ADD, {"inputs": (0, 2), "outputs": (4,)}, "residual has kind 0 and width 1"),
        (OpCode.NORM_ADD, {"inputs": (0, 4), "outputs": (2,)}, "output has kind 0 and width 1"),
        (OpCode.NORM_ADD, {"inputs": (0, 4), "outputs": (4,), "real": (NOT_A_NUMBER,)}, "eps nan"),
        (OpCode.NORM, {"outputs": (-2,)}, "writes 48 channels of all rows"),
        (OpCode.NORM_ADD, {"inputs": (0, 4), "outputs": (-2,), "on_logits": True}, "output is buffer -2"),
        (OpCode.LOGITS, {"outputs": (-2,), "on_logits": True, "real": (1.0,)}, "no operation before it"),
    ],
)
def test_row_operations_that_cannot_be(code: OpCode, change: dict[str, Any], sentence: str) -> None:
    buffers = [
        float_buffer(48, 0),
        int8_buffer(48, 1),
        float_buffer(1, 2),
        int8_buffer(24, 3),
        float_buffer(48, 4),
    ]
    op = replace(native.Op(code, (0,), (1, 2)), **change)
    with pytest.raises(NativeError, match=sentence):
        create([op], [], buffers, native.Shape(4, **NO_CACHE))


def test_rows_and_logits_of_one_step_are_equally_wide() -> None:
    ops, bands, buffers, shape = linear_parts()
    linear = replace(ops[0], outputs=(-2,), on_logits=True)
    buffers = [*buffers, float_buffer(7, len(buffers))]
    norm = native.Op(OpCode.NORM, (len(buffers) - 1,), (-2,), on_logits=True)
    with pytest.raises(NativeError, match="writes 7 channels"):
        create([linear, norm], bands, buffers, shape)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"real": (0.0,)}, "scale 0"),
        ({"real": (1.0, -1.0)}, "softcap -1"),
        ({"real": (1.0, INFINITE)}, "softcap inf"),
        ({"on_logits": False}, "not on the logit rows"),
        ({"outputs": (3,)}, "changes step logits"),
    ],
)
def test_changes_of_logits_that_cannot_be(change: dict[str, Any], sentence: str) -> None:
    ops, bands, buffers, shape = linear_parts()
    linear = replace(ops[0], outputs=(-2,), on_logits=True)
    logits = native.Op(OpCode.LOGITS, (), (-2,), on_logits=True, real=(1.0, 30.0))
    program = create([linear, logits], bands, buffers, shape)
    with pytest.raises(NativeError, match="gives no array"):
        program.run(step_of(1, logit_rows=np.zeros(1, np.int32)), None, 1)
    program.close()
    with pytest.raises(NativeError, match=sentence):
        create([linear, replace(logits, **change)], bands, buffers, shape)


@pytest.mark.parametrize("scale", [0.0, -1.0, NOT_A_NUMBER])
def test_embeddings_have_a_scale(scale: float) -> None:
    bands = native_bands(random_linear(np.random.default_rng(0), 40, [(8, 4)]))
    op = native.Op(OpCode.EMBED, outputs=(0,), bands=1, real=(scale,))
    with pytest.raises(NativeError, match="operation 0 has the scale"):
        create([op], bands, [float_buffer(40, 0)], native.Shape(4, **NO_CACHE))


def test_unknown_operation_codes() -> None:
    _, bands, buffers, shape = linear_parts()
    op = native.Op(OpCode.QUANT, (2,), (0, 1))
    object.__setattr__(op, "code", type("Code", (int,), {"name": "UNKNOWN"})(99))
    with pytest.raises(NativeError, match="code 99"):
        create([op], bands, buffers, shape)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": 7},
        {"width": 0},
        {"width": -5},
        {"planes": 3},
        {"slot": 4},
        {"slot": -1},
    ],
)
def test_impossible_buffers(change: dict[str, int]) -> None:
    ops, bands, buffers, shape = linear_parts()
    with pytest.raises(NativeError, match="buffer 0"):
        create(ops, bands, [replace(buffers[0], **change), *buffers[1:]], shape)


@pytest.mark.parametrize(
    "change",
    [
        {"max_rows": 0},
        {"kv_heads": 3},
        {"kv_heads": 0},
        {"page_tokens": 24},
        {"page_tokens": 4},
        {"page_tokens": 1024},
        {"context": 0},
        {"context": (1 << 30) + 1},
        {"pools": ()},
        {"pools": (native.Pool(2, 3),) * 65},
        {"pools": (native.Pool(2, 0),)},
        {"pools": (native.Pool(1, 3),)},
        {"pools": (native.Pool(2, 3, window=-1),)},
        {"pools": (native.Pool(2, 3), native.Pool(2, 0, window=4))},
    ],
)
def test_impossible_shapes(change: dict[str, int]) -> None:
    ops, bands, buffers, shape = attention_parts()
    with pytest.raises(NativeError):
        create(ops, bands, buffers, replace(shape, **change))


@pytest.mark.parametrize("head_dim", [0, 1, 15, 514])
def test_heads_that_have_no_pairs_or_too_many(head_dim: int) -> None:
    ops, bands, buffers, shape = attention_parts()
    with pytest.raises(NativeError, match=f"a head has {head_dim} dimensions, expected an even number"):
        create(ops, bands, buffers, replace(shape, head_dim=head_dim))


def test_a_pool_larger_than_memory_is_a_sentence() -> None:
    ops, bands, buffers, shape = attention_parts()
    with pytest.raises(NativeError, match="KV pool"):
        create(ops, bands, buffers, replace(shape, pools=(native.Pool(4096, 1 << 24),), page_tokens=512))


@pytest.mark.parametrize("threads", [0, -1, 1000])
def test_impossible_thread_counts(threads: int) -> None:
    with pytest.raises(NativeError, match="threads"):
        create(*linear_parts(), threads=threads)


def test_kernels_this_processor_lacks() -> None:
    for name in set(KERNELS) - {"auto"} - set(supported_kernels()):
        with pytest.raises(NativeError, match=name):
            create(*linear_parts(), kernel=name)
    with pytest.raises(NativeError, match="no kernel 'fast'"):
        create(*linear_parts(), kernel="fast")


@pytest.mark.parametrize(
    "fields, sentence",
    [
        ({"positions": [0, 0]}, "expected a later position"),
        ({"positions": [1, 0]}, "expected a later position"),
        ({"positions": [0, 32]}, "reaches to 31"),
        ({"positions": [-1, 0]}, "position -1"),
        ({"sequences": [0, 1]}, "sequence 1 of 1"),
        ({"sequences": [-1, 0]}, "sequence -1"),
        ({"block_tables": [[3, 0]]}, "pages 0 to 2"),
        ({"block_tables": [[-1, 0]]}, "pages 0 to 2"),
        ({"logit_rows": [2]}, "logit row 0"),
        ({"logit_rows": [0, 1, 0, 1, 0]}, "at most 4"),
        ({"tokens": [0] * 5, "positions": range(5), "sequences": [0] * 5}, "5 rows"),
    ],
)
def test_steps_outside_the_program(fields: dict[str, Any], sentence: str) -> None:
    program = create(*attention_parts())
    values = {"tokens": [0, 0], "positions": [0, 1], "sequences": [0, 0], "block_tables": [[2, 1]], **fields}
    step = Batch(**{name: np.array(value, np.int32) for name, value in values.items()})
    with pytest.raises(NativeError, match=sentence):
        program.run(step)
    program.close()


def test_only_pages_in_reach_are_checked() -> None:
    program = create(*attention_parts())
    program.run(step_of(2, block_tables=np.array([[1, 77]], np.int32)))
    program.close()


def test_tokens_outside_the_vocabulary() -> None:
    bands = native_bands(random_linear(np.random.default_rng(0), 40, [(8, 4), (5, 8)]))
    program = create(
        [native.Op(OpCode.EMBED, outputs=(0,), bands=2, real=(1.0,))],
        bands,
        [float_buffer(40, 0)],
        native.Shape(4, **NO_CACHE),
    )
    program.run(step_of(1, tokens=np.array([12], np.int32)))
    for token in (13, -1):
        with pytest.raises(NativeError, match="tokens 0 to 12"):
            program.run(step_of(1, tokens=np.array([token], np.int32)))
    program.close()


def test_operation_ranges_and_pages_and_buffers_outside() -> None:
    program = create(*attention_parts())
    for first, last in [(-1, 1), (0, 3), (2, 1)]:
        with pytest.raises(NativeError, match="the program has 2"):
            program.run(step_of(1), first=first, last=last)
    with pytest.raises(NativeError, match="there is no page 3 in KV pool 0; its pages are 0 to 2"):
        program.program.copy_page(0, 0, 3)
    with pytest.raises(NativeError, match="there is no KV pool 1; the program has 1"):
        program.program.copy_page(1, 0, 1)
    with pytest.raises(NativeError, match="no buffer 4"):
        program.buffer(4)
    program.close()
    with pytest.raises(NativeError, match="closed"):
        program.run(step_of(1))


def test_a_missing_library_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("ROCKLEDGE_LIBRARY", str(tmp_path / "nothing.so"))
    native.library.cache_clear()
    try:
        with pytest.raises(NativeError, match="make native"):
            native.library()
        (tmp_path / "nothing.so").write_text("no library")
        with pytest.raises(NativeError, match="make native"):
            native.library()
    finally:
        native.library.cache_clear()

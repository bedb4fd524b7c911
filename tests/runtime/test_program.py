"""The program of an artifact: what is built for each variant, and how much memory it takes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.runtime.artifacts import VARIANTS

from rockledge.artifact import open_artifact
from rockledge.formats.packing import unpack, unpack_codes
from rockledge.runtime.native import BufferKind, OpCode
from rockledge.runtime.program import band_views, build_program

Path_ = Callable[[str], Path]


def codes_of(artifact_path: Path_, variant: str) -> list[OpCode]:
    return [op.code for op in build_program(open_artifact(artifact_path(variant))).ops]


def test_a_layer_is_nine_operations(artifact_path: Path_) -> None:
    layer = [
        OpCode.NORM_QUANT, OpCode.LINEAR, OpCode.ROPE_KV, OpCode.ATTENTION, OpCode.QUANT, OpCode.LINEAR,
        OpCode.NORM_QUANT, OpCode.LINEAR, OpCode.GATED_QUANT, OpCode.LINEAR,
    ]  # fmt: skip
    head = [OpCode.GATHER, OpCode.NORM_QUANT, OpCode.LINEAR]
    assert codes_of(artifact_path, "plain") == [OpCode.EMBED, *layer, *layer, *head]


def test_a_tied_head_behind_a_rotation_goes_back_and_forth(artifact_path: Path_) -> None:
    tail = codes_of(artifact_path, "rotated-tied")[-6:]
    assert tail == [
        OpCode.GATHER, OpCode.NORM, OpCode.ROTATE, OpCode.ROTATE, OpCode.QUANT, OpCode.LINEAR,
    ]  # fmt: skip
    assert OpCode.ROTATE not in codes_of(artifact_path, "rotated")


@pytest.mark.parametrize("variant", ["two-planes", "mixed-planes"])
def test_planes_reach_the_buffers(artifact_path: Path_, variant: str) -> None:
    artifact = open_artifact(artifact_path(variant))
    plan = build_program(artifact)
    down = [op for op in plan.ops if op.code is OpCode.GATED_QUANT]
    assert {plan.buffers[op.outputs[0]].planes for op in down} == {VARIANTS[variant].planes["down"]}
    queries = [op for op in plan.ops if op.code is OpCode.ROPE_KV]
    assert {plan.buffers[op.outputs[0]].planes for op in queries} == {1}


def test_bands_are_views_of_the_file(artifact_path: Path_) -> None:
    artifact = open_artifact(artifact_path("rotated-tied"))
    linear = artifact.linear("layers.1.attn.q")
    whole = unpack(linear)
    views = band_views(linear, 7)
    assert sum(view.rows for view in views) == linear.rows
    for view in views:
        assert np.shares_memory(view.codes, linear.codes)
        assert np.shares_memory(view.scale, linear.scale)
        assert view.codes.ctypes.data % 64 == 0
        if view.bits == 8:
            first = view.out_column - 7
            codes = unpack_codes(view.codes, view.rows, view.cols, 8).view(np.int8)
            np.testing.assert_array_equal(codes, whole[first : first + view.rows])


def test_layers_share_their_rotary_frequencies(artifact_path: Path_) -> None:
    plan = build_program(open_artifact(artifact_path("plain")))
    assert len({id(op.weight[0]) for op in plan.ops if op.code is OpCode.ROPE_KV}) == 1


def test_layers_share_their_buffers(artifact_path: Path_) -> None:
    """The arena does not grow with depth, and holds less than all buffers side by side."""
    plan = build_program(open_artifact(artifact_path("rotated-tied")))
    assert len(plan.buffers) < len(plan.ops)
    apart = sum(
        buffer.planes * -(-buffer.width // 32) * 32 if buffer.kind is BufferKind.INT8 else 4 * buffer.width
        for buffer in plan.buffers
    )
    assert sum(plan.arena.row_bytes) < apart / 2

"""A layer has programs for every step, over one packing of its weights."""

import numpy as np
import pytest

from rockledge.errors import NpuError
from rockledge.npu.programs.steps import step_matmuls, step_rows
from rockledge.synth import SHAPES
from rockledge_npu_lab.verify.emulated import EmulatedNpu


@pytest.mark.parametrize("tokens, rows", [(1, 64), (64, 64), (65, 128), (200, 256), (257, 512), (512, 512)])
def test_a_chunk_is_padded_to_the_next_step(tokens, rows):
    assert step_rows(tokens) == rows


@pytest.mark.parametrize("tokens", [0, 513])
def test_a_chunk_that_has_no_programs_is_refused(tokens):
    with pytest.raises(NpuError, match=f"a chunk has {tokens} tokens, expected 1 to 512"):
        step_rows(tokens)


@pytest.mark.parametrize("planes", [1, 2])
def test_a_short_chunk_takes_the_programs_of_its_step(planes):
    random = np.random.default_rng(planes)
    q = random.integers(-128, 128, (50, planes, 3000)).astype(np.int8)
    w8 = random.integers(-128, 128, (96, 3000)).astype(np.int8)
    rows = step_rows(len(q))
    padded = np.zeros((rows, planes, 3000), np.int8)
    padded[: len(q)] = q
    matmul = step_matmuls(96, 3000, planes)[rows]
    sums = matmul.multiply(padded.reshape(-1, 3000), w8, EmulatedNpu().run)
    found = sums.reshape(rows, planes, 96)[: len(q)]
    for plane in range(planes):
        assert (found[:, plane] == q[:, plane].astype(np.float64) @ w8.astype(np.float64).T).all()


def layers(name):
    """The distinct outputs x inputs of a shape's linears, its head included."""
    c = SHAPES[name]
    q, kv = c.heads * c.head_dim, c.kv_heads * c.head_dim
    return {
        (q, c.hidden),
        (kv, c.hidden),
        (c.hidden, q),
        (c.ffn, c.hidden),
        (c.hidden, c.ffn),
        (c.vocab, c.hidden),
    }


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_every_layer_of_every_shape_has_programs_that_share_one_packing(name):
    for outputs, inputs in layers(name):
        found = step_matmuls(outputs, inputs, planes=2)
        assert sorted(found) == [64, 128, 256, 512]
        assert {matmul.tiling.m for matmul in found.values()} == {128, 256, 512, 1024}
        assert len({matmul.tiling.input_parts for matmul in found.values()}) == 1
        for matmul in found.values():
            assert {launch.columns for launch in matmul.launches} == {
                launch.columns for launch in found[64].launches
            }


def test_one_weight_buffer_serves_all_steps():
    w8 = np.random.default_rng(0).integers(-128, 128, (96, 5000)).astype(np.int8)
    buffers = [
        matmul.weight_bytes(launch, w8).tobytes()
        for matmul in step_matmuls(96, 5000).values()
        for launch in matmul.launches
    ]
    assert len(set(buffers)) == 1

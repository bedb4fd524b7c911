"""Programs of every type and form on the emulator, in shapes and at addresses that no golden program has."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.npu_lab import sheet
from tests.npu_lab.emulation.running import Bench, bench_for, operands, stored, taken
from tests.npu_lab.sheet import Shape

from rockledge.npu.stream import Address, chain


@st.composite
def shapes(draw, pairs=sheet.PAIRS, forms=sheet.FORMS) -> Shape:
    """Shapes that fit the convolution buffer."""
    kind, out = draw(st.sampled_from(pairs))
    group, run = sheet.TYPES[kind][3:]
    k = run * draw(st.integers(1, 12))
    n = group * draw(st.integers(1, 5))
    form = draw(st.sampled_from(forms))
    m = draw(st.integers(1, 90))
    full = m + draw(st.integers(0, 9)) if form == "row" and draw(st.booleans()) else 0
    return Shape(kind, out, m, k, n, form, full, rdma=draw(st.booleans()))


@st.composite
def places(draw, sizes: dict[str, int]) -> dict[str, int]:
    """Addresses of buffers anywhere below 4 GiB, in any order, none overlapping."""
    names = draw(st.permutations(sorted(sizes)))
    room = (2**32 - sum(sizes.values())) // 16 - 16 * len(names)
    gaps = sorted(draw(st.lists(st.integers(0, room), min_size=len(names), max_size=len(names))))
    found, used = {}, 0
    for name, gap in zip(names, gaps, strict=True):
        found[name] = 16 * gap + used
        used += -(-sizes[name] // 16) * 16
    return found


def expected(shape: Shape, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    exact = a[: shape.m] @ b.T
    if shape.kind_out == "int16":
        return np.clip(exact, -(2**15), 2**15 - 1)
    return exact


def check(shape: Shape, found: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    """Integers exact; fp32 within 3e-6 of the rms; 16 bits within one rounding of that."""
    exact = expected(shape, a, b)
    if shape.kind.startswith("int"):
        np.testing.assert_array_equal(found, exact)
        return
    slack = 3e-6 * np.sqrt(np.mean(exact**2))
    units = {"fp32": 0, "fp16": 2.0**-11, "bf16": 2.0**-8}[shape.kind_out]
    # Half a unit is at most 2^-11 (fp16) or 2^-8 (bf16) of the number; fp16 has no finer step than 2^-24.
    allowed = slack + np.maximum(np.abs(exact) * units, 2.0**-25 if units else 0)
    assert (np.abs(found - exact) <= allowed).all()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_shape_at_any_address(data):
    shape = data.draw(shapes())
    a = operands(shape.kind, (shape.rows, shape.k), 1)
    b = operands(shape.kind, (shape.n, shape.k), 2)
    bench = bench_for(shape, a, b)
    before = bench.buffers["output"].copy()
    program = sheet.program(shape)
    sizes = {role: len(bytes_) for role, bytes_ in bench.buffers.items()}
    bench.addresses = data.draw(places({**sizes, "program": program.size_bytes + 8}))
    done = bench.kick(program)
    assert (done.programs, done.interrupt, done.early) == (1, 0x300, False)
    assert done.macs == shape.m * shape.k * shape.n
    where = sheet.output_places(shape)
    check(shape, taken(bench.buffers["output"], shape.kind_out, where[: shape.m]), a, b)
    # Rows of the whole matrix that the program does not take stay as they were.
    rest = taken(bench.buffers["output"], shape.kind_out, where[shape.m :])
    np.testing.assert_array_equal(rest, taken(before, shape.kind_out, where[shape.m :]))


@pytest.mark.parametrize("m", [1, 2, 3, 4, 5, 7, 8])
def test_few_rows_follow_the_address_formula(m):
    shape = Shape("int8", "int32", m, 64, 32)
    a, b = operands("int8", (m, 64), 3), operands("int8", (32, 64), 4)
    bench = bench_for(shape, a, b)
    bench.kick(sheet.program(shape))
    check(shape, taken(bench.buffers["output"], "int32", sheet.output_places(shape)), a, b)


def test_few_rows_with_a_clamped_stride_read_wrong_surfaces():
    # One generator never goes below 0: its surfaces then lie four rows apart instead of two.
    shape = Shape("int8", "int32", 2, 64, 32)
    a, b = operands("int8", (4, 64), 3), operands("int8", (32, 64), 4)
    wide = Shape("int8", "int32", 4, 64, 32)
    bench = bench_for(shape, a[:2], b)
    bench.buffers["input"] = stored(a, "int8", sheet.input_places(wide))
    bench.kick(sheet.program(shape, {"CNA_DMA_CON2": 0}))
    check(shape, taken(bench.buffers["output"], "int32", sheet.output_places(shape)), a[:2], b)


@pytest.mark.parametrize("height", [6, 8, 11])
def test_lines_of_an_image_by_fours(height):
    # A stride between fours of lines that is not that of four lines, with and without a rest of lines.
    shape = Shape("int8", "int32", height, 32, 32)
    a, b = operands("int8", (height, 32), 5), operands("int8", (32, 32), 6)
    bench = bench_for(shape, a, b)
    line, surface = 9, 40
    rows = np.arange(height)[:, None]
    k = np.arange(32)[None, :]
    atoms = k // 16 * surface + rows // 4 * line + rows % 4
    bench.buffers["input"] = stored(a, "int8", atoms * 16 + k % 16)
    bench.kick(sheet.program(shape, {"CNA_DMA_CON1": line, "CNA_DMA_CON2": surface - 4}))
    check(shape, taken(bench.buffers["output"], "int32", sheet.output_places(shape)), a, b)


def test_chains_run_in_order_and_see_what_was_written():
    # Two parts of K: the second program writes beside the first, then the DPU alone adds both.
    first, second = (Shape("int8", "int32", 8, 64, 32, rdma=True) for _ in range(2))
    a, b = operands("int8", (8, 128), 7), operands("int8", (32, 128), 8)
    bench = Bench(
        {
            "input": np.concatenate(
                [stored(a[:, part], "int8", sheet.input_places(first)) for part in _halves(128)]
            ),
            "weight": np.concatenate(
                [stored(b[:, part], "int8", sheet.weight_places(first)) for part in _halves(128)]
            ),
            "output": np.zeros(8 * 32 * 4, np.uint8),
            "operand": np.zeros(8 * 32 * 4, np.uint8),
        }
    )
    moved = {
        "CNA_FEATURE_DATA_ADDR": Address("input", 8 * 64),
        "CNA_DCOMP_ADDR0": Address("weight", 32 * 64),
        "DPU_DST_BASE_ADDR": Address("operand"),
    }
    add = sheet.flying(second, sheet.flying_add(8, 32, "int32"))
    kick = chain([sheet.program(first), sheet.program(second, moved), add])
    assert bench.kick(kick).programs == 3
    found = taken(bench.buffers["output"], "int32", sheet.output_places(first))
    np.testing.assert_array_equal(found, a @ b.T)


def _halves(size: int) -> list[slice]:
    return [slice(0, size // 2), slice(size // 2, size)]


@pytest.mark.parametrize("kind", ["int32", "fp16"])
@pytest.mark.parametrize("m", [1, 5, 16])
def test_additions_of_the_dpu_alone(kind, m):
    n = 32
    shape = Shape("int8", "int32", m, 32, n, rdma=True)
    random = np.random.default_rng(m)
    where = sheet.output_places(Shape("fp16", kind, m, 32, n))
    if kind == "int32":
        x, y = (random.integers(-(2**31), 2**31, (m, n)) for _ in range(2))
        total = np.clip(x + y, -(2**31), 2**31 - 1)
    else:
        x, y = (random.standard_normal((m, n)).astype(np.float16).astype(np.float64) for _ in range(2))
        total = (x + y).astype(np.float16).astype(np.float64)
    bench = Bench({"output": stored(x, kind, where), "operand": stored(y, kind, where)})
    bench.kick(sheet.flying(shape, sheet.flying_add(m, n, kind)))
    np.testing.assert_array_equal(taken(bench.buffers["output"], kind, where), total)


def test_data_reuse_keeps_the_tile_of_the_program_before():
    # The second program names the same tile, but memory has changed in between: the buffer still holds it.
    shape = Shape("int8", "int32", 4, 32, 32)
    a, b = operands("int8", (4, 32), 1), operands("int8", (32, 32), 2)
    bench = bench_for(shape, a, b)
    bench.buffers["operand"] = np.zeros(4 * 32 * 4, np.uint8)
    # The first writes its result over the input (both lie in "input"): int32 sums need room.
    room = np.zeros(4 * 32 * 4, np.uint8)
    room[: len(bench.buffers["input"])] = bench.buffers["input"]
    bench.buffers["input"] = room
    over = sheet.program(shape, {"DPU_DST_BASE_ADDR": Address("input")})
    reuse = sheet.program(shape, {"CNA_CBUF_CON0": 0xB1 | 1 << 12, "DPU_DST_BASE_ADDR": Address("operand")})
    bench.kick(chain([over, reuse]))
    where = sheet.output_places(shape)
    np.testing.assert_array_equal(taken(bench.buffers["input"], "int32", where), a @ b.T)
    np.testing.assert_array_equal(taken(bench.buffers["operand"], "int32", where), a @ b.T)


def test_weight_reuse_keeps_the_kernels_of_the_program_before():
    shape = Shape("int8", "int32", 4, 32, 32)
    a, b = operands("int8", (8, 32), 1), operands("int8", (32, 32), 2)
    bench = bench_for(shape, a[:4], b)
    bench.buffers["operand"] = stored(a[4:], "int8", sheet.input_places(shape))
    both = np.zeros(2 * 4 * 32 * 4, np.uint8)
    bench.buffers["output"] = both
    second = sheet.program(
        shape,
        {
            "CNA_CBUF_CON0": 0xB1 | 1 << 13,
            "CNA_FEATURE_DATA_ADDR": Address("operand"),
            "DPU_DST_BASE_ADDR": Address("output", 512),
        },
    )
    bench.kick(chain([sheet.program(shape), second]))
    where = sheet.output_places(shape)
    np.testing.assert_array_equal(taken(both[:512], "int32", where), a[:4] @ b.T)
    np.testing.assert_array_equal(taken(both[512:], "int32", where), a[4:] @ b.T)

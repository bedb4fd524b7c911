"""Checks programs of open generators: random operands placed by the stated layouts, compared with NumPy.

A case is self-contained: operation, types, shape, layouts, addresses, words. What is expected is
computed from the operands alone (float64 or exact integers), never by the emulator's own addressing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rockledge.errors import NpuError
from rockledge.npu import isa
from rockledge_npu_lab.emulation.core import Core
from rockledge_npu_lab.emulation.faults import Flag
from rockledge_npu_lab.emulation.memory import Buffer, Memory
from rockledge_npu_lab.emulation.options import DEFAULT, Options
from rockledge_npu_lab.emulation.register_file import signed
from rockledge_npu_lab.verify.golden_layout import (
    Floats,
    Placed,
    decode,
    encode,
    feature_layout,
    kernel_layout,
    result_layout,
    up,
)

# Tolerances: against float64 for products (in units of the rms of the result), absolute for the table.
FP32_RMS: Final = 3e-6
SIGMOID: Final = 0.0017
SIGMOID_RANGE: Final = 8.0
# More than an operand of any program can have, by the limits of its registers.
MAX_ELEMENTS: Final = 1 << 28


@dataclass(frozen=True)
class Outcome:
    """How one case went; `error` in the unit that `detail` names, or what went wrong (error: infinity)."""

    case: str
    passed: bool
    error: float
    detail: str
    flags: tuple[Flag, ...] = ()


def load_cases(path: str | Path) -> list[dict[str, Any]]:
    """The cases of a JSON file. Raises NpuError when it is not one."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise NpuError(f"{path} cannot be read: {error.strerror or error}") from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise NpuError(f"{path} is not a JSON file of cases: {error}") from None
    cases = content.get("cases") if isinstance(content, dict) else None
    if not isinstance(cases, list) or not all(isinstance(case, dict) for case in cases):
        raise NpuError(f'{path} has no list "cases" of objects')
    return cases


def verify(case: Mapping[str, Any], seed: int = 0, options: Options = DEFAULT) -> Outcome:
    """Runs a case's programs on random operands and compares. Never raises for what is in the case."""
    name = str(case.get("id", "(no id)"))
    try:
        # A wrong program may well make infinities and NaN: then the error is NaN, and the case fails.
        with np.errstate(invalid="ignore", over="ignore"):
            return _verify(case, name, seed, options)
    except NpuError as error:
        return Outcome(name, False, float("inf"), str(error))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, MemoryError) as error:
        return Outcome(name, False, float("inf"), f"the case cannot be read: {type(error).__name__}: {error}")


def _verify(case: Mapping[str, Any], name: str, seed: int, options: Options) -> Outcome:
    operation = str(case["op"])
    random = np.random.default_rng((seed, *name.encode()))
    if operation.startswith("matmul"):
        return _verify_matmul(case, name, operation, random, options)
    if "sigmoid" in operation:
        return _verify_sigmoid(case, name, random, options)
    if operation.startswith("depthwise"):
        return _verify_depthwise(case, name, random, options)
    raise NpuError(f"the operation {operation!r} is not known, expected a matmul, sigmoid or depthwise")


def _verify_matmul(
    case: Mapping[str, Any], name: str, operation: str, random: np.random.Generator, options: Options
) -> Outcome:
    m, k, n = (int(case[key]) for key in "MKN")
    kind, kind_out = str(case["dtype_in"]), str(case["dtype_out"])
    if min(m, k, n) < 1 or max(m * k, k * n, m * n) > MAX_ELEMENTS:
        raise NpuError(f"a product of {m} x {k} x {n}, expected matrices of 1 to {MAX_ELEMENTS} elements")
    layout: Mapping[str, str] = case["layout"]
    a, b = _random(random, kind, (m, k)), _random(random, kind, (n, k))
    place_a, place_b = feature_layout(layout["A"], kind, m, k), kernel_layout(layout["B"], kind, n, k)
    place_c = result_layout(layout["C"], kind_out, m, n)
    buffers = {"input": encode(a, place_a), "weight": encode(b, place_b)}
    operand = None
    if "+" in operation:
        operand = _random(random, kind_out, (m, n))
        buffers["ew_operand"] = encode(operand, place_c)
    # Bytes that belong to no element must stay as they were.
    before = random.integers(0, 256, place_c.size, np.uint8)
    buffers["output"] = before.copy()
    flags = run_case(case, buffers, options)
    found = decode(buffers["output"], place_c)
    if kind == "tf32":
        a, b = (_tf32(x) for x in (a, b))
    exact = a @ b.T
    if kind.startswith("int"):
        error = float(np.abs(found - stored_integers(exact, kind_out)).max())
        detail = "largest difference from the exact integers"
        passed = error == 0
    else:
        error, detail, passed = _float_error(found, exact, operand, operation, kind_out)
    touched = _untouched(before, buffers["output"], place_c)
    if touched:
        return Outcome(name, False, error, f"{touched} bytes outside the result were written", flags)
    return Outcome(name, passed, error, detail, flags)


def _float_error(
    found: Floats, exact: Floats, operand: Floats | None, operation: str, kind: str
) -> tuple[float, str, bool]:
    """fp32: distance in units of the rms; 16 bits: in units of one rounding, of which the product's own
    distance (as of fp32) is a part.
    """
    slack = FP32_RMS * float(np.sqrt(np.mean(exact**2)))
    scale: Floats | float = 1.0
    if operand is not None:
        product = operation.endswith("mul")
        scale = np.abs(operand) if product else 1.0
        exact = exact * operand if product else exact + operand
    if kind == "fp32":
        rms = float(np.sqrt(np.mean(exact**2))) or 1.0
        error = float(np.abs(found - exact).max()) / rms
        return error, "largest difference from float64 sums, in units of their rms", error <= FP32_RMS
    error = float((np.abs(found - exact) / (half_unit(exact, kind) + slack * scale)).max())
    return error, f"largest difference from float64 sums, in units of one rounding to {kind}", error <= 1


def _verify_sigmoid(
    case: Mapping[str, Any], name: str, random: np.random.Generator, options: Options
) -> Outcome:
    count = int(case["elements"])
    if not 1 <= count <= MAX_ELEMENTS:
        raise NpuError(f"{count} elements, expected 1 to {MAX_ELEMENTS}")
    x = random.uniform(-SIGMOID_RANGE, SIGMOID_RANGE, count).astype(np.float16)
    x[:2] = (-SIGMOID_RANGE, SIGMOID_RANGE)[: len(x[:2])]
    buffers = {"input": x.view(np.uint8), "output": np.zeros(2 * count, np.uint8)}
    flags = run_case(case, buffers, options)
    found = buffers["output"].view(np.float16).astype(np.float64)
    error = float(np.abs(found - 1.0 / (1.0 + np.exp(-x.astype(np.float64)))).max())
    return Outcome(name, error <= SIGMOID, error, "largest difference from the sigmoid on [-8, 8]", flags)


def _verify_depthwise(
    case: Mapping[str, Any], name: str, random: np.random.Generator, options: Options
) -> Outcome:
    channels, pixels = int(case["channels"]), int(case["height"]) * int(case["width"])
    if min(channels, pixels) < 1 or channels * pixels > MAX_ELEMENTS:
        raise NpuError(f"{channels} channels of {pixels} pixels, expected 1 to {MAX_ELEMENTS} elements")
    place = feature_layout(str(case["layout"]["input"]), "int8", pixels, channels)
    place_out = feature_layout(str(case["layout"]["output"]), "int8", pixels, channels)
    x, weight = _random(random, "int8", (pixels, channels)), _random(random, "int8", (1, channels))
    bias = random.integers(-(1 << 14), 1 << 14, channels)
    # Weights fill groups of 64 channels; the rest is never used.
    padded = np.zeros(-(-channels // 64) * 64, np.int8)
    padded[:channels] = weight[0]
    before = random.integers(0, 256, place_out.size, np.uint8)
    buffers = {
        "input": encode(x, place),
        "weight": padded.view(np.uint8),
        "bias": bias.astype("<i4").view(np.uint8),
        "output": before.copy(),
    }
    flags = run_case(case, buffers, options)
    found = decode(buffers["output"], place_out)
    last = _last_writes(case)
    scale, shift = signed(last["DPU_OUT_CVT_SCALE"] & 0xFFFF, 16), last["DPU_OUT_CVT_SHIFT"] & 0xFFF
    offset = signed(last["DPU_OUT_CVT_OFFSET"], 32)
    zero_point = signed(last["DPU_BS_OW_OP"] & 0xFFFF, 16)
    # In float64 everything is exact here: sums below 2^24, a 16-bit scale, a power of two.
    expected = np.rint((x * (weight + zero_point) + bias) * scale / 2.0**shift) + offset
    error = float(np.abs(found - np.clip(expected, -128, 127)).max())
    touched = _untouched(before, buffers["output"], place_out)
    if touched:
        return Outcome(name, False, error, f"{touched} bytes outside the result were written", flags)
    return Outcome(name, error == 0, error, "largest difference by the register's multiplier", flags)


def run_case(
    case: Mapping[str, Any], buffers: Mapping[str, NDArray[np.uint8]], options: Options
) -> tuple[Flag, ...]:
    """Runs a case's tasks with operands in `buffers` (role -> bytes), at the addresses that it states.

    Results are written into the buffers. Raises NpuError for a stream that is refused.
    """
    addresses = {role: int(str(text), 16) for role, text in case["addresses"].items()}
    for role in buffers:
        if role not in addresses:
            raise NpuError(f"the case gives no address of {role}")
    placed = [Buffer(role, addresses[role], data) for role, data in buffers.items()]
    tasks: Sequence[Mapping[str, Any]] = case["tasks"]
    if not tasks:
        raise NpuError("the case has no tasks")
    streams = [np.array([int(word, 16) for word in task["words"]], "<u8") for task in tasks]
    stated = [int(str(task["regcmd_addr"]), 16) if "regcmd_addr" in task else None for task in tasks]
    if stated[0] is None:
        stated = [_free_place(placed, streams[0].nbytes), *stated[1:]]
    for index, (address, words) in enumerate(zip(stated, streams, strict=True)):
        if address is None:
            raise NpuError(f"task {index} states no address, which its chain needs")
        # The PC fetches pairs: an odd program is followed by a word of zeros.
        words = np.append(words, np.zeros(len(words) % 2, "<u8"))
        placed.append(Buffer(f"program {index}", address, words.view(np.uint8)))
    assert stated[0] is not None
    core = Core(Memory(placed), options)
    mask = int(str(tasks[-1].get("int_mask", hex(isa.INT_DPU))), 16)
    return core.kick(stated[0], int(tasks[0]["regcfg_amount"]), len(tasks), mask).flags


def stored_integers(values: Floats, kind: str) -> Floats:
    """Exact sums as the type stores them: integers saturated, fp32 rounded once."""
    if kind == "fp32":
        return values.astype(np.float32).astype(np.float64)
    limits = np.iinfo(kind)
    return np.clip(values, limits.min, limits.max)


def half_unit(values: Floats, kind: str) -> Floats:
    """Half the distance between neighbouring 16-bit floats at `values`."""
    bits, least = {"fp16": (11, -24), "bf16": (8, -133)}[kind]
    exponents = np.frexp(values)[1]
    return np.asarray(np.exp2(np.maximum(exponents - bits, least) - 1.0))


def _random(random: np.random.Generator, kind: str, shape: tuple[int, ...]) -> Floats:
    """Random numbers that the type holds exactly: all integers, or standard normal floats."""
    if kind in ("int4", "int8"):
        half = 1 << (isa.PRECISIONS[kind].bits - 1)
        return random.integers(-half, half, shape).astype(np.float64)
    if kind not in ("fp16", "bf16", "tf32"):
        raise NpuError(f"operands of type {kind!r} are not known")
    values = random.standard_normal(shape, np.float32)
    if kind == "fp16":
        return values.astype(np.float16).astype(np.float64)
    kept = np.uint32(0xFFFF0000 if kind == "bf16" else 0xFFFFFFFF)
    return (values.view(np.uint32) & kept).view(np.float32).astype(np.float64)


def _tf32(values: Floats) -> Floats:
    """What is left of fp32 operands without their low 13 bits."""
    bits = values.astype(np.float32).view(np.uint32) & np.uint32(0xFFFFE000)
    return bits.view(np.float32).astype(np.float64)


def _untouched(before: NDArray[np.uint8], after: NDArray[np.uint8], placed: Placed) -> int:
    """How many bytes changed that belong to no element."""
    size = isa.PRECISIONS[placed.kind].bits // 8
    changed = (before != after).reshape(-1, size).any(axis=1)
    changed[placed.places] = False
    return int(changed.sum())


def _last_writes(case: Mapping[str, Any]) -> dict[str, int]:
    """What each register of the last task is set to; 0 for those of the DPU that it does not write."""
    written = {name: 0 for name in isa.REGISTERS if name.startswith("DPU_")}
    for text in case["tasks"][-1]["words"]:
        target, value, offset = isa.split(int(text, 16))
        register = isa.register_of(target, offset)
        if register is not None:
            written[register.name] = value
    return written


def _free_place(buffers: Sequence[Buffer], size: int) -> int:
    """A page-aligned address where nothing lies."""
    page = 4096
    address = page
    for buffer in sorted(buffers, key=lambda buffer: buffer.address):
        if address + size + isa.WORD_BYTES <= buffer.address:
            break
        address = max(address, up(buffer.end, page))
    return address

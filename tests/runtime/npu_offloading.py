"""What a worker process does with a toy program's linears on the NPU: runs it there and on the CPU."""

import ctypes
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise

import numpy as np
from tests.runtime.held import held
from tests.runtime.offloaded_toy import NOTHING, Cut, Offloaded, Toy

from rockledge.errors import NativeError, NpuError
from rockledge.npu.layout import INT8, pack_cube, pad
from rockledge.npu.programs.tiling import Sums
from rockledge.runtime.npu_cores import prove
from rockledge.runtime.npu_device import NpuDevice
from rockledge.runtime.offload import native_plan
from rockledge.runtime.offload.native_plan import BufferPlace, OffloadLinear, npu_work, use_npu

HOUR_MS = 3_600_000  # a busy machine is no device that slept
MOST_ROWS = 24  # of a step; more than the programs of a cut take


def cut_of(fields):
    """A cut from JSON."""
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
    return Cut(**{**fields, "sums": Sums[fields.get("sums", "SINGLE")]})


@contextmanager
def loaded(driver, planes=1, threads=1, kernel="auto", probe=False, **fields):
    """Device, toy, its plan, and the toy's program twice: for the CPU, and to be given the plan."""
    cut = cut_of(fields)
    device = NpuDevice(driver)
    if probe:
        prove(device, cut.timeout_ms, idle_ms=HOUR_MS)
    toy = Toy(planes)
    cpu, npu = toy.program(MOST_ROWS), toy.program(MOST_ROWS, threads, kernel)
    yield device, toy, Offloaded(device, toy, cut), cpu, npu
    for program in (cpu, npu):
        program.close()
    device.close()


def leave_npu(program):
    """All linears run on the CPU again."""
    assert native_plan.native.library().rl_step_use_npu(program.handle, None, None) == 0


def equal(toy, cpu, npu, rows, seed):
    return bool(np.array_equal(toy.run(cpu, rows, seed), toy.run(npu, rows, seed)))


def prefill(driver, steps, **fields):
    """Steps of these many rows, on the NPU and on the CPU: whether they agree, and what the NPU did.

    The last of `equal` is of a step after `leave_npu`.
    """
    before = held()
    with loaded(driver, probe=True, **fields) as (device, toy, offloaded, cpu, npu):
        use_npu(npu, device, offloaded.plan)
        right, blocks = [], []
        for number, rows in enumerate(steps):
            right.append(equal(toy, cpu, npu, rows, number))
            blocks.append(npu_work(npu).blocks)
        work, about = vars(npu_work(npu)), vars(device.describe())
        pinned = len(offloaded.slots) == len(offloaded.block_of) and work["stopped"] is None
        weights = right_slots(offloaded) if pinned else None
        leave_npu(npu)
        right.append(equal(toy, cpu, npu, MOST_ROWS, 99))
        unpacked = weight_bytes(offloaded, toy)
    return {
        "equal": right, "blocks": blocks, "work": work, "about": about, "weights": weights,
        "held": [before, held()], "blocks_of_step": len(offloaded.block_of), "weight_bytes": unpacked,
    }  # fmt: skip


def weight_bytes(offloaded, toy):
    """Int8 weights of whole strips, with padded inputs."""
    return sum(
        -(-len(w) // 8) * 8 * offloaded.plan.shapes[one.shape].inputs
        for one, w in zip(offloaded.plan.linears, toy.weights.values(), strict=True)
    )


def right_slots(offloaded):
    """Whether every weight lies where the layouts of the NPU say."""
    for block in range(len(offloaded.block_of)):
        for lane, buffer in enumerate(offloaded.slots[block]):
            expected = offloaded.expected_slot(block, lane)
            found = buffer.data.view(np.int8)[: expected.size]
            if not (found == expected)[expected != NOTHING].all():
                return False
    return True


def in_pieces(driver, pieces):
    """A step whose operations run in several calls, [first, last) each."""
    with loaded(driver) as (device, toy, offloaded, cpu, npu):
        use_npu(npu, device, offloaded.plan)
        expected = toy.run(cpu, 12)
        try:
            for first, last in pieces:
                found = toy.run(npu, 12, 0, first, last)
        except NativeError as error:
            return {"error": str(error)}
        return {"equal": bool(np.array_equal(expected, found)), "blocks": npu_work(npu).blocks}


def last_input(driver, planes):
    """Whether the codes of the last linear lie in the NPU's input as NumPy packs those of the CPU."""
    with loaded(driver, planes, threads=2, rows=[20], tile_rows=8) as (device, toy, offloaded, cpu, npu):
        use_npu(npu, device, offloaded.plan)
        toy.run(cpu, 20), toy.run(npu, 20)
        linear = offloaded.plan.linears[-1]
        shape = offloaded.plan.shapes[linear.shape]
        codes = cpu.buffer(toy.ops[linear.op].inputs[0])[:20].reshape(20 * shape.planes, -1)
        codes = pad(codes, len(codes), shape.inputs)
        starts = shape.sizes[0].tile_starts
        expected = np.concatenate([pack_cube(codes[a:b], INT8.atom) for a, b in pairwise(starts)])
        return {
            "right": [
                bool(np.array_equal(buffer.data[: expected.size].view(np.int8), expected))
                for buffer in offloaded.inputs
            ]
        }


def _first_shape(plan, **fields):
    return replace(plan, shapes=(replace(plan.shapes[0], **fields), *plan.shapes[1:]))


def _first_size(plan, **fields):
    shape = plan.shapes[0]
    return _first_shape(plan, sizes=(replace(shape.sizes[0], **fields), *shape.sizes[1:]))


def _linears(plan, number, **fields):
    linears = list(plan.linears)
    linears[number] = replace(linears[number], **fields)
    return replace(plan, linears=tuple(linears))


def _programs(plan, change):
    return _first_size(plan, programs=change(plan.shapes[0].sizes[0].programs))


# What makes a good plan one that is refused, and words of the refusal.
CHANGES: dict[str, tuple[Callable, str]] = {
    "timeout": (lambda p: replace(p, timeout_ms=0), "blocks of 0 ms"),
    "no rows": (lambda p: replace(p, from_rows=0), "steps from 0 rows"),
    "rows beyond programs": (lambda p: replace(p, from_rows=21), "at most the 20"),
    "no linears": (lambda p: replace(p, linears=()), "0 linears"),
    "no shapes": (lambda p: replace(p, shapes=()), "0 shapes"),
    "no slots": (lambda p: replace(p, slots=()), "0 slots"),
    "fewer blocks": (lambda p: replace(p, block_slot=p.block_slot[:-1]), "blocks"),
    "more blocks": (
        lambda p: replace(p, block_slot=(*p.block_slot, 0)),
        "17 blocks, expected the 16 of its linears",
    ),
    "slot beyond": (lambda p: replace(p, block_slot=(99, *p.block_slot[1:])), "slot 99"),
    "slot below": (lambda p: replace(p, block_slot=(-1, *p.block_slot[1:])), "slot -1"),
    "same op twice": (lambda p: _linears(p, 1, op=p.linears[0].op), "in rising order"),
    "op beyond": (lambda p: _linears(p, -1, op=999), "operation 999"),
    "no linear": (lambda p: _linears(p, 0, op=0), "code 1"),
    "op of the head": (
        lambda p: replace(p, linears=(*p.linears, OffloadLinear(23, 0, 1)), block_slot=(*p.block_slot, 0)),
        "operation 23",
    ),
    "shape beyond": (lambda p: _linears(p, 0, shape=9), "shape 9"),
    "shape below": (lambda p: _linears(p, 0, shape=-1), "shape -1"),
    "other shape": (lambda p: _linears(p, 0, shape=1), "its shape"),
    "too few blocks": (lambda p: _linears(p, 0, blocks=1), "its columns take 3"),
    "odd columns": (lambda p: _first_shape(p, lane_columns=33), "33 columns"),
    "no columns": (lambda p: _first_shape(p, lane_columns=0), "0 columns"),
    "three planes": (lambda p: _first_shape(p, planes=3), "3 planes"),
    "odd parts": (lambda p: _first_shape(p, part_starts=(0, 40, 96)), "input parts"),
    "falling parts": (lambda p: _first_shape(p, part_starts=(0, 64, 32, 96)), "input parts"),
    "short parts": (lambda p: _first_shape(p, part_starts=(0, 64)), "input parts"),
    "no parts": (lambda p: _first_shape(p, part_starts=(0,)), "lists are missing"),
    "no sizes": (lambda p: _first_shape(p, sizes=()), "lists are missing"),
    "sizes that fall": (lambda p: _first_shape(p, sizes=p.shapes[0].sizes[::-1]), "rows must rise"),
    "no tiles": (lambda p: _first_size(p, tile_starts=(0,)), "lists are missing"),
    "odd tiles": (lambda p: _first_size(p, tile_starts=(0, 3, 8)), "row tiles"),
    "tiles beyond": (lambda p: _first_size(p, tile_starts=(0, 4, 12)), "row tiles"),
    "no sums": (lambda p: _first_size(p, sums=0), "0 planes of sums"),
    "sums beyond": (lambda p: _first_size(p, sums=2), "2 planes of sums"),
    "one instance": (lambda p: _programs(p, lambda i: (i[0], i[0])), "is twice in a plan"),
    "one program": (lambda p: _programs(p, lambda i: (i[0][:1] * 3, i[1])), "is twice in a plan"),
    "lost program": (
        lambda p: _programs(p, lambda i: ((replace(i[0][0], number=9999), *i[0][1:]), i[1])),
        "no program 9999",
    ),
    "program of another size": (
        lambda p: _first_size(p, programs=p.shapes[0].sizes[1].programs),
        "",  # either range that it does not fit
    ),
    "lost buffer": (
        lambda p: replace(p, slots=((_lost(p.slots[0][0]), *p.slots[0][1:]), *p.slots[1:])),
        "no buffer 9999",
    ),
    "odd place": (lambda p: replace(p, outputs=(_moved(p.outputs[0], 32), p.outputs[1])), "multiple of 64"),
    "place beyond": (lambda p: replace(p, outputs=(_moved(p.outputs[0], 1 << 40), p.outputs[1])), "room"),
    "place below": (lambda p: replace(p, inputs=_moved(p.inputs, -64)), "room"),
    "slots that overlap": (lambda p: replace(p, slots=(p.slots[1], *p.slots[1:])), "overlap"),
    "outputs that overlap": (lambda p: replace(p, outputs=(p.outputs[0], p.outputs[0])), "overlap"),
    "input in a slot": (lambda p: replace(p, inputs=p.slots[0][:1] * 3), ""),
}


def _lost(place):
    return BufferPlace(replace(place.buffer, number=9999))


def _moved(places, by):
    return tuple(BufferPlace(place.buffer, place.offset + by) for place in places)


# The same for numbers that the dataclasses do not have.
RAW: dict[str, tuple[Callable, str]] = {
    "lanes": (lambda c: setattr(c, "lanes", 4), "4 lanes"),
    "no lanes": (lambda c: setattr(c, "lanes", 0), "0 lanes"),
    "first block": (lambda c: setattr(c.linears[1], "first_block", 0), "from number 0"),
    "no lists": (lambda c: setattr(c, "slots", None), "lists are missing"),
    "no list of linears": (lambda c: setattr(c, "linears", None), "linears"),
    "many shapes": (lambda c: setattr(c, "n_shapes", 1 << 30), "shapes"),
    "many blocks": (lambda c: setattr(c, "n_blocks", -5), "-5 blocks"),
    "many sizes": (lambda c: setattr(c.shapes[0], "n_sizes", 1 << 20), "too long"),
    "many tiles": (lambda c: setattr(c.shapes[0].sizes[0], "n_tiles", 1 << 30), "too long"),
}


def refusals(driver):
    """Of every change the words expected and the sentence that came; then whether the good plan works."""
    found = {}
    with loaded(driver) as (device, toy, offloaded, cpu, npu):
        for name, (change, words) in CHANGES.items():
            try:
                use_npu(npu, device, change(offloaded.plan))
                found[name] = [words, None]
            except NpuError as error:
                found[name] = [words, str(error)]
        for name, (change, words) in RAW.items():
            structure = native_plan.structure(offloaded.plan)
            change(structure)
            result = native_plan.native.library().rl_step_use_npu(
                npu.handle, device.handle, ctypes.byref(structure)
            )
            said = native_plan.native.library().rl_error().decode()
            found[name] = [words, said if result < 0 else None]
        use_npu(npu, device, offloaded.plan)
        return {"found": found, "equal": equal(toy, cpu, npu, 12, 0), "blocks": npu_work(npu).blocks}


def keeping(driver):
    """What a program that uses the NPU keeps from going, and that it all goes in the end."""
    before = held()
    said = []

    def refused(action, *arguments):
        try:
            action(*arguments)
            said.append(None)
        except (NativeError, NpuError) as error:
            said.append(str(error))

    with loaded(driver) as (device, toy, offloaded, cpu, npu):
        plan = offloaded.plan
        use_npu(npu, device, plan)
        refused(device.release, plan.slots[0][0].buffer)
        refused(device.unload, plan.shapes[0].sizes[0].programs[0][0])
        refused(use_npu, cpu, device, plan)  # another program
        use_npu(npu, device, plan)  # the same once more
        leave_npu(npu)
        use_npu(cpu, device, plan)
        leave_npu(cpu)
        use_npu(npu, device, plan)
        device.close()
        works = equal(toy, cpu, npu, 12, 0)
        blocks = npu_work(npu).blocks
    return {"said": said, "equal": works, "blocks": blocks, "held": [before, held()]}


ORDERS = {
    "prefill": prefill,
    "in_pieces": in_pieces,
    "last_input": last_input,
    "refusals": refusals,
    "keeping": keeping,
}

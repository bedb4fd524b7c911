"""A plan of prefill on a device: its buffers and programs, and the record of them that the core takes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rockledge.runtime.npu_device import Buffer, Loaded, NpuDevice
from rockledge.runtime.offload import native_plan
from rockledge.runtime.offload.native_plan import ROLES, BufferPlace
from rockledge.runtime.offload.plan import INSTANCES, Place, PrefillPlan


@dataclass(frozen=True)
class OnDevice:
    """What lies there for a plan: `buffers` in its order, `programs` by (shape, rows, instance, lane)."""

    buffers: tuple[Buffer, ...]
    programs: Mapping[tuple[int, int, int, int], Loaded]

    def at(self, place: Place) -> BufferPlace:
        """A place of the plan."""
        return BufferPlace(self.buffers[place.buffer], place.offset)

    def lanes(self, shape: int, rows: int, instance: int, lanes: int) -> tuple[Loaded, ...]:
        """The programs of all lanes."""
        return tuple(self.programs[shape, rows, instance, lane] for lane in range(lanes))


def load(device: NpuDevice, plan: PrefillPlan) -> OnDevice:
    """Allocates all buffers and loads all programs. Raises NpuError."""
    buffers = tuple(device.allocate(buffer.bytes, buffer.space) for buffer in plan.buffers)
    programs = {
        (number, size.rows, instance, lane): device.load(
            size.program, buffers[plan.programs[number, size.rows, instance, lane]], 0, ROLES
        )
        for number, shape in enumerate(plan.shapes)
        for size in shape.sizes
        for instance in range(INSTANCES)
        for lane in range(plan.lanes)
    }
    return OnDevice(buffers, programs)


def offload_plan(plan: PrefillPlan, there: OnDevice, timeout_ms: int) -> native_plan.OffloadPlan:
    """The plan over what lies there; a block may take `timeout_ms`."""

    def each(places: Sequence[Place]) -> tuple[BufferPlace, ...]:
        return tuple(map(there.at, places))

    shapes = []
    for number, shape in enumerate(plan.shapes):
        sizes = []
        for size in shape.sizes:
            first, second = (
                there.lanes(number, size.rows, instance, plan.lanes) for instance in range(INSTANCES)
            )
            sizes.append(native_plan.StepSize(size.rows, size.sums, size.tile_starts, (first, second)))
        shapes.append(
            native_plan.OffloadShape(
                shape.inputs, shape.planes, shape.lane_columns, shape.part_starts, tuple(sizes)
            )
        )
    first_output, second_output = map(each, plan.outputs)
    return native_plan.OffloadPlan(
        lanes=plan.lanes,
        from_rows=plan.from_rows,
        timeout_ms=timeout_ms,
        shapes=tuple(shapes),
        linears=tuple(native_plan.OffloadLinear(one.op, one.shape, one.blocks) for one in plan.linears),
        block_slot=plan.block_slot,
        slots=tuple(map(each, plan.slots)),
        inputs=each(plan.inputs),
        outputs=(first_output, second_output),
    )

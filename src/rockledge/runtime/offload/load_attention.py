"""Attention on a device: its buffers and programs, each tried with random numbers before it is used."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rockledge.formats.attention_spec import SPLIT
from rockledge.npu.programs.attention_products import TiledProduct
from rockledge.npu.programs.tile_program import INPUT, OUTPUT, WEIGHT
from rockledge.runtime.npu_device import TO_DEVICE, Binding, Buffer, Loaded, NpuDevice
from rockledge.runtime.offload.attention_plan import LEAST_ROWS, AttentionPlan
from rockledge.runtime.offload.native_attention import AttentionOffload, LoadedSize
from rockledge.runtime.offload.native_plan import ROLES, BufferPlace
from rockledge.runtime.offload.plan import Place


@dataclass(frozen=True)
class AttentionOnDevice:
    """What lies there for a plan: `buffers` in its order, and the programs of its sizes."""

    plan: AttentionPlan
    buffers: tuple[Buffer, ...]
    sizes: tuple[LoadedSize, ...]

    def at(self, place: Place) -> BufferPlace:
        """A place of the plan."""
        return BufferPlace(self.buffers[place.buffer], place.offset)

    def release(self, device: NpuDevice) -> None:
        """Gives it all back, when the device is not used for it."""
        for size in self.sizes:
            for program in (*size.score_programs[0], *size.score_programs[1], *size.sum_programs):
                device.unload(program)
        for buffer in self.buffers:
            device.release(buffer)


def load_attention(device: NpuDevice, plan: AttentionPlan) -> AttentionOnDevice:
    """Allocates all buffers and loads all programs. Raises NpuError."""
    buffers = tuple(device.allocate(buffer.bytes, buffer.space) for buffer in plan.buffers)

    def loaded(product: TiledProduct, homes: tuple[int, ...]) -> tuple[Loaded, ...]:
        return tuple(device.load(product.program, buffers[home], 0, ROLES) for home in homes)

    sizes = tuple(
        LoadedSize(
            size.rows,
            size.products.scores.tile,
            size.products.sums.tile,
            (
                loaded(size.products.scores, size.score_programs[0]),
                loaded(size.products.scores, size.score_programs[1]),
            ),
            loaded(size.products.sums, size.sum_programs),
        )
        for size in plan.sizes
    )
    return AttentionOnDevice(plan, buffers, sizes)


def attention_offload(there: AttentionOnDevice, timeout_ms: int) -> AttentionOffload:
    """The plan over what lies there; a job may take `timeout_ms`."""

    def each(places: tuple[Place, ...]) -> tuple[BufferPlace, ...]:
        return tuple(map(there.at, places))

    plan = there.plan
    return AttentionOffload(
        lanes=plan.lanes,
        start=plan.start,
        least_rows=LEAST_ROWS,
        timeout_ms=timeout_ms,
        sizes=there.sizes,
        queries=each(plan.queries),
        keys=each(plan.keys),
        scores=(each(plan.scores[0]), each(plan.scores[1])),
        weights=each(plan.weights),
        values=each(plan.values),
        sums=each(plan.sums),
    )


def wrong_attention(device: NpuDevice, there: AttentionOnDevice, timeout_ms: int) -> Iterator[str]:
    """Runs a program of each kind and size on all lanes with random operands, and says which do not give
    their products. Raises NpuError when the device is given up over a job."""
    plan = there.plan
    of_scores = plan.queries, plan.keys, plan.scores[0]
    of_sums = plan.weights, plan.values, plan.sums
    for size, loaded in zip(plan.sizes, there.sizes, strict=True):
        for what, product, programs, places in (
            ("scores", size.products.scores, loaded.score_programs[0], of_scores),
            ("sums", size.products.sums, loaded.sum_programs, of_sums),
        ):
            if not _Trial(device, there, product, places).right(programs, timeout_ms):
                yield f"the {what} of steps of {size.step_rows} tokens are wrong"


class _Trial:
    """One product on every lane."""

    def __init__(
        self,
        device: NpuDevice,
        there: AttentionOnDevice,
        product: TiledProduct,
        places: tuple[tuple[Place, ...], tuple[Place, ...], tuple[Place, ...]],
    ) -> None:
        """`places` of input, weight and output, each of all lanes."""
        self._device, self._there, self._product = device, there, product
        self._places = dict(zip((INPUT, WEIGHT, OUTPUT), places, strict=True))
        random = np.random.default_rng(product.vectors)
        columns, k = product.matmul.tiling.n, product.matmul.tiling.k
        self._a = random.integers(-127, 128, (product.vectors, k)).astype(np.int8)
        self._b = random.integers(-127, 128, (columns, k)).astype(np.int8)

    def right(self, programs: tuple[Loaded, ...], timeout_ms: int) -> bool:
        """Whether every lane gives the product."""
        matmul, launch = self._product.matmul, self._product.matmul.launches[0]
        self._fill(INPUT, matmul.input_bytes(launch, self._a))
        self._fill(WEIGHT, matmul.weight_bytes(launch, self._b))
        for lane, program in enumerate(programs):
            self._device.bind(program, {role: self._binding(role, lane) for role in self._places})
        self._device.submit(programs, timeout_ms)
        self._device.wait()
        # Below 2^24: exact in fp32, whose product is the fast one.
        assert 127 * 127 * SPLIT < 1 << 24
        expected = (self._a.astype(np.float32) @ self._b.astype(np.float32).T).astype(np.int32)
        return all(
            np.array_equal(matmul.sums(launch, self._bytes(place, OUTPUT).view(np.int32)), expected)
            for place in self._places[OUTPUT]
        )

    def _binding(self, role: str, lane: int) -> Binding:
        at = self._there.at(self._places[role][lane])
        return Binding(at.buffer, role == OUTPUT, 0, at.offset, self._product.bytes(role))

    def _bytes(self, place: Place, role: str) -> NDArray[np.uint8]:
        at = self._there.at(place)
        return at.buffer.data[at.offset : at.offset + self._product.bytes(role)]

    def _fill(self, role: str, data: NDArray[np.int8]) -> None:
        for place in dict.fromkeys(self._places[role]):
            self._bytes(place, role)[:] = data.view(np.uint8)
            at = self._there.at(place)
            self._device.sync(at.buffer, TO_DEVICE, at.offset, data.size)

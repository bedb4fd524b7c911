"""A program in pieces: every row once, in the file where its piece says it is."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.runtime.artifacts import VARIANTS

from rockledge.artifact import open_artifact
from rockledge.artifact.layout import TENSORS
from rockledge.runtime.native import OpCode
from rockledge.runtime.program import build_program
from rockledge.runtime.streaming.pieces import cut, held_bytes, hold, offset_of, pieces_of


@pytest.mark.parametrize("most", [1, 3000, 10_000, 1 << 24])
@pytest.mark.parametrize("variant", ["mixed-planes", "tied", "bias"])
def test_pieces_cover_the_program(most: int, variant: str, artifact_path: Callable[[str], Path]) -> None:
    artifact = open_artifact(artifact_path(variant))
    plan = build_program(artifact)
    parts = cut(plan, most)
    mapping = int(artifact.mapped.ctypes.data)
    content = (artifact.path / TENSORS).read_bytes()

    def columns(ops: object) -> list[tuple[int, int]]:
        return [
            (band.out_column + row, int(band.scale[row].view(np.int32)))
            for op in ops  # type: ignore[attr-defined]
            if op.code is OpCode.LINEAR
            for band in parts.bands[op.first_band : op.first_band + op.bands]
            for row in range(band.rows)
        ]

    whole = [
        (band.out_column + row, int(band.scale[row].view(np.int32)))
        for op in plan.ops
        if op.code is OpCode.LINEAR
        for band in plan.bands[op.first_band : op.first_band + op.bands]
        for row in range(band.rows)
    ]
    assert columns(parts.ops) == whole
    pieces = {piece.op: piece for piece in pieces_of(parts, mapping)}
    for number, op in enumerate(parts.ops):
        if op.code is not OpCode.LINEAR:
            continue
        bands = parts.bands[op.first_band : op.first_band + op.bands]
        memory = b"".join(content[s.file : s.file + s.bytes] for s in pieces[number].segments)
        stored = 0
        for band in bands:
            for array in (band.codes, band.index):
                if array is None:
                    continue
                at = pieces[number].place(offset_of(array, mapping))
                assert at % 64 == 0
                assert memory[at : at + array.nbytes] == array.tobytes()
                stored += array.nbytes
        assert stored <= most or all(band.rows <= 64 for band in bands)


def test_what_is_always_in_memory_is_not_of_the_file(artifact_path: Callable[[str], Path]) -> None:
    artifact = open_artifact(artifact_path("norms-around"))
    plan = build_program(artifact)
    held = hold(plan, artifact.mapped)
    assert held_bytes(plan, artifact.mapped) > 0
    assert held_bytes(held, artifact.mapped) == 0
    for before, after in zip(plan.bands, held.bands, strict=True):
        assert np.array_equal(before.scale, after.scale)
    # Operations that shared an array share it still.
    shared = [id(weight) for op in plan.ops for weight in op.weight if weight is not None]
    copies = [id(weight) for op in held.ops for weight in op.weight if weight is not None]
    assert len(set(copies)) <= len(set(shared))


def test_all_variants_are_known() -> None:
    assert {"mixed-planes", "tied", "bias", "norms-around"} <= set(VARIANTS)

"""Which operations the NPU can take."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rockledge.artifact import open_artifact
from rockledge.runtime.native import OpCode
from rockledge.runtime.offload.linears import linears_of
from rockledge.runtime.program import build_program

ArtifactPath = Callable[[str], Path]


def test_all_linears_of_the_layers_and_neither_embedding_nor_head(artifact_path: ArtifactPath) -> None:
    artifact = open_artifact(artifact_path("mixed-planes"))
    plan = build_program(artifact)
    found = linears_of(plan)
    # hidden 80 and ffn 144 are padded to 96 and 160; q, k and v have two planes, and down.
    layer = [(256, 96, 2), (80, 128, 1), (288, 96, 1), (80, 160, 2)]
    assert [(one.outputs, one.inputs, one.planes) for one in found] == layer * 2
    assert all(plan.ops[one.op].code is OpCode.LINEAR for one in found)
    in_layers = [name for name in artifact.linears if name.startswith("layers.")]
    linears = [artifact.linear(name) for name in in_layers]
    weights = sum(count for one in found for count in one.weights.values())
    assert weights == sum(linear.rows * linear.cols for linear in linears)
    assert {bits for one in found for bits in one.weights} == {2, 3, 4, 8}
    stored = sum(linear.codes.nbytes + linear.index.nbytes + linear.scale.nbytes for linear in linears)
    assert 0.9 * stored < sum(one.stored_bytes for one in found) <= stored


def test_a_band_within_a_strip_stays_on_the_cpu(artifact_path: ArtifactPath) -> None:
    plan = build_program(open_artifact(artifact_path("plain")))
    first = linears_of(plan)[0]
    number = plan.ops[first.op].first_band + 1
    moved = replace(plan.bands[number], out_column=plan.bands[number].out_column + 4)
    bands = (*plan.bands[:number], moved, *plan.bands[number + 1 :])
    found = linears_of(replace(plan, bands=bands))
    assert [one.op for one in found] == [one.op for one in linears_of(plan)][1:]

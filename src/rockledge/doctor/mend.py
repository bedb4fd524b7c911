"""`--fix`: the artifact once more, with what the findings ask for; everything else is copied as it is."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rockledge.artifact import Artifact, ArtifactPlan, ArtifactWriter, LinearSpec
from rockledge.artifact.layout import CONFIG, RECIPE
from rockledge.artifact.parts import size_numbers
from rockledge.conversion.native_rows import round_rows
from rockledge.conversion.nearest import normal_tables, round_integers
from rockledge.doctor.basis import Basis
from rockledge.doctor.finding import Finding, NewFiles, NewSettings, NewTurns, Requantised, TwoPlanes
from rockledge.doctor.specification import Specification, own_rotation
from rockledge.errors import UsageError
from rockledge.formats.bands import Band, groups, table_widths
from rockledge.formats.hadamard import Rotation
from rockledge.formats.packing import PackedLinear, pack
from rockledge.model.config import ModelConfig
from rockledge.quantization.choosing.recipe import read_recipe

Progress = Callable[[str, int, int], None]
_OF_ACCURACY = ("divergence", "budgets", "price_check")


@dataclass
class _Changes:
    """All that the findings ask for, together."""

    settings: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes | None] = field(default_factory=dict)
    requantised: dict[str, int] = field(default_factory=dict)  # and least bits, 0 for those it has
    two_planes: set[str] = field(default_factory=set)
    turns: NewTurns | None = None

    def add(self, finding: Finding) -> None:
        change = finding.change
        if isinstance(change, NewSettings):
            self.settings.update(change.fields)
        elif isinstance(change, NewFiles):
            self.files.update(change.files)
        elif isinstance(change, Requantised):
            for name in change.linears:
                self.requantised[name] = max(self.requantised.get(name, 0), change.bits or 0)
        elif isinstance(change, TwoPlanes):
            self.two_planes.update(change.linears)
        elif isinstance(change, NewTurns):
            self.turns = change


def can_mend(findings: Sequence[Finding]) -> list[Finding]:
    """Those that a change of the artifact mends."""
    return [finding for finding in findings if finding.change is not None]


def write_mended(
    artifact: Artifact,
    basis: Basis | None,
    findings: Sequence[Finding],
    out: Path,
    progress: Progress = lambda stage, done, total: None,
) -> None:
    """Writes to `out`, whole or not at all, `artifact` with the changes of `findings`. Matrices are rounded
    to the nearest from the reference in `basis`. UsageError without one where a matrix is asked for, and
    ArtifactError."""
    changes = _Changes()
    for finding in findings:
        changes.add(finding)
    if changes.requantised and basis is None:
        raise UsageError("a matrix cannot be quantised again without its original; give --reference")
    plan = _plan(artifact, changes)
    originals = _Originals(Specification.of(artifact), basis) if basis is not None else None
    with ArtifactWriter(out, plan) as writer:
        for done, (name, spec) in enumerate(plan.linears.items(), 1):
            packed = artifact.linear(name)
            if name in changes.requantised:
                assert originals is not None
                packed = rounded(originals.matrix(name), spec.bands, originals.bias(name))
            writer.linear(name, packed)
            progress("write", done, len(plan.linears))
        for name in plan.arrays:
            values = np.array(artifact.array(name))
            if name in changes.requantised:
                assert basis is not None
                values = basis.model.gain(name).numpy()
            writer.array(name, values)
        writer.report(_report(artifact, plan, findings))


def rounded(weights: Tensor, bands: tuple[Band, ...], bias: Tensor | None) -> PackedLinear:
    """A linear of `weights` fp32 [N, K] and `bias` fp32 [N], rounded to the nearest, with the tables of
    normal weights."""
    rows, cols = weights.shape
    matrix = np.ascontiguousarray(weights.numpy(), np.float32)
    codes, index = np.zeros((rows, cols), np.uint8), np.zeros((rows, groups(cols)), np.uint8)
    scale = np.empty(rows, np.float32)
    for band in bands:
        part = slice(band.start, band.start + band.rows)
        if band.bits == 8:
            w8, scale[part] = round_integers(matrix[part])
            codes[part] = w8.view(np.uint8)
        else:
            codes[part], index[part], scale[part] = round_rows(matrix[part], band.bits)
    tables = {bits: normal_tables(bits).tables for bits in table_widths(bands)}
    return pack(codes, index, tables, scale, bands, None if bias is None else bias.numpy())


class _Originals:
    """The reference's matrices in the artifact's basis, a layer at a time."""

    def __init__(self, spec: Specification, basis: Basis) -> None:
        self._spec = spec
        self._basis = basis
        self._number = -1
        self._layer: Mapping[str, Tensor] = {}

    @torch.no_grad()
    def _of(self, name: str) -> Tensor | None:
        tree = self._spec.tree
        if name == tree.embed.role:
            return self._basis.embedding()
        if name == tree.head.role:
            return self._basis.head()
        if not name.startswith("layers."):
            return None
        _, number, role = name.split(".", 2)
        if int(number) != self._number:
            self._number = int(number)
            self._layer = self._basis.layer(self._number, self._spec.layer_weights(self._number))
        return self._layer.get(role)

    def matrix(self, name: str) -> Tensor:
        """fp32 [N, K]."""
        found = self._of(name)
        assert found is not None
        return found

    def bias(self, name: str) -> Tensor | None:
        """fp32 [N]."""
        return self._of(name + ".bias")


def _plan(artifact: Artifact, changes: _Changes) -> ArtifactPlan:
    config: ModelConfig = replace(artifact.config, **changes.settings)
    files = {name: data for name, data in artifact.files.items() if name != CONFIG}
    files |= {name: data for name, data in changes.files.items() if data is not None}
    files = {name: data for name, data in files.items() if changes.files.get(name, data) is not None}
    linears = {
        name: _linear(spec, changes.requantised.get(name, 0), two_planes=name in changes.two_planes)
        for name, spec in artifact.linears.items()
    }
    rotation: Rotation | None = own_rotation(artifact)
    online = artifact.online
    if changes.turns is not None:
        rotation, online = changes.turns.rotation, changes.turns.online
    return ArtifactPlan(
        config=config,
        linears=linears,
        parameters=artifact.parameters,
        arrays=artifact.arrays,
        rotation=rotation,
        online=online,
        files=files,
        recipe=_recipe(artifact, linears),
    )


def _linear(spec: LinearSpec, bits: int, *, two_planes: bool) -> LinearSpec:
    bands = tuple(Band(band.start, band.rows, max(band.bits, bits)) for band in spec.bands)
    return replace(spec, bands=bands, planes=2 if two_planes else spec.planes)


def _recipe(artifact: Artifact, linears: Mapping[str, LinearSpec]) -> str | None:
    """The recipe with the widths and planes as they are now; as it was where it cannot be read."""
    if artifact.recipe is None:
        return None
    try:
        recipe = read_recipe(artifact.path / RECIPE)
    except UsageError:
        return artifact.recipe
    widths = {name: linears[name].bands for name in recipe.widths if name in linears}
    planes = {name: spec.planes for name, spec in linears.items()}
    return replace(recipe, widths=widths or recipe.widths, planes=planes).text()


def _report(artifact: Artifact, plan: ArtifactPlan, findings: Sequence[Finding]) -> dict[str, Any]:
    """The report with the sizes of now and what was mended. What it said of accuracy is true no more."""
    report = {key: value for key, value in (artifact.report or {}).items() if key not in _OF_ACCURACY}
    mended: dict[str, list[str]] = defaultdict(list)
    for finding in findings:
        mended[finding.place].append(finding.cause)
    return {**report, **size_numbers(plan), "mended": dict(mended)}

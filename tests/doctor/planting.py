"""Artifacts with one thing changed, written so that every checksum is right, as a faulty tool would write
them."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rockledge.artifact import Artifact, ArtifactPlan, ArtifactWriter, open_artifact
from rockledge.artifact.layout import CONFIG
from rockledge.doctor.diagnose import Diagnosis, diagnose
from rockledge.doctor.specification import own_rotation
from rockledge.doctor.text import Text
from rockledge.formats.hadamard import Rotation
from rockledge.formats.packing import PackedLinear
from rockledge.model.checkpoint import open_checkpoint
from rockledge.runtime.engine import Engine

SAME: Any = object()
TEXT = Text.of([[40, 41, 90, 91, 92, 60, 61], list(range(30, 70, 2))], [[70, 71, 72], [80]])


def planted(
    source: Path,
    out: Path,
    *,
    linears: Mapping[str, PackedLinear] = {},
    arrays: Mapping[str, Any] = {},
    config: Mapping[str, Any] = {},
    files: Mapping[str, bytes] = {},
    rotation: Rotation | None = SAME,
    online: Mapping[str, int] | None = None,
) -> Path:
    """A copy of the artifact `source` in which this is otherwise."""
    old = open_artifact(source)
    kept = {name: data for name, data in old.files.items() if name != CONFIG}
    plan = ArtifactPlan(
        config=replace(old.config, **config),
        linears=old.linears,
        parameters=old.parameters,
        arrays=old.arrays,
        rotation=own_rotation(old) if rotation is SAME else rotation,
        online=old.online if online is None else online,
        files={**kept, **files},
        recipe=old.recipe,
    )
    with ArtifactWriter(out, plan) as writer:
        for name in plan.linears:
            writer.linear(name, linears.get(name, old.linear(name)))
        for name in plan.arrays:
            writer.array(name, arrays.get(name, np.array(old.array(name))))
        writer.report(old.report or {})
    return out


def scaled(artifact: Artifact, name: str, rows: slice, factor: float) -> PackedLinear:
    """A linear in which the scales of some rows are another."""
    packed = artifact.linear(name)
    scale = np.array(packed.scale)
    scale[rows] *= np.float32(factor)
    return replace(packed, scale=scale)


def cpu_logits(path: Path, text: Text = TEXT) -> torch.Tensor:
    """What the runtime makes of a text."""
    with Engine.load(path, ctx=max(text.length, 64), npu="off", threads=1) as engine:
        return torch.cat([torch.from_numpy(engine.logits(one)) for one in text.sequences])


def examined(path: Path, reference: Path | None, cpu: torch.Tensor | None = None) -> Diagnosis:
    """The diagnosis of an artifact."""
    return diagnose(
        open_artifact(path),
        TEXT,
        cpu_logits(path) if cpu is None else cpu,
        reference=None if reference is None else open_checkpoint(reference),
    )

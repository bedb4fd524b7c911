"""The targets by name, and the export to one of them: it appears whole, or not at all."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from rockledge.artifact import open_artifact
from rockledge.artifact.publish import publish_directory, write_file, writing
from rockledge.errors import UsageError
from rockledge.export.gguf_target import GGUF
from rockledge.export.hf import HF
from rockledge.export.plain import PlainModel
from rockledge.export.request import ExportRequest, Target, Written
from rockledge.export.rknn_target import RKNN

TARGETS: Final[Mapping[str, Target]] = {target.name: target for target in (HF, GGUF, RKNN)}

REPORT: Final = "export.json"


def export(artifact: str | Path, out: str | Path, to: str, request: ExportRequest) -> Written:
    """Writes the artifact as a directory `out` for the target `to`.

    Every byte of the artifact is checked first. ArtifactError where it is damaged or `out` cannot be written,
    UsageError where something is there, the type is unknown, or the target cannot hold the model.
    """
    if to not in TARGETS:
        raise UsageError(f"there is no target {to!r}, expected one of {', '.join(TARGETS)}")
    target, place = TARGETS[to], Path(out)
    kind = request.kind or target.kinds[0]
    if kind not in target.kinds:
        raise UsageError(
            f"{to} has no type {kind!r}, expected one of {', '.join(target.kinds)}; leave --type out for "
            f"{target.kinds[0]}"
        )
    check_empty(place)
    opened = open_artifact(artifact)
    opened.verify()
    with publish_directory(place, check_empty) as folder:
        written = target.write(PlainModel(opened), folder, place, replace(request, kind=kind))
        report: dict[str, Any] = {"to": to, "artifact_digest": opened.digest, **written.report}
        with writing(place):
            write_file(folder / REPORT, (json.dumps(report, indent=2) + "\n").encode())
    return written


def check_empty(out: Path) -> None:
    """Raises UsageError where something is at `out` that is not an empty directory."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UsageError(f"{out} is there and not empty; choose another place, or remove it yourself")

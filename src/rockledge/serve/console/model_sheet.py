"""What the page shows of a model: size, the bits of every matrix, what was measured, and how it samples."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from rockledge.artifact import Artifact
from rockledge.artifact.layout import LinearSpec
from rockledge.errors import ArtifactError
from rockledge.formats.bands import packed_bytes
from rockledge.serve.errors import printable
from rockledge.serve.served_model import ServedModel

# Parts of report.json that compare the artifact with its float model, and on which text by default.
_MEASURED: Final = {
    "divergence": "held-out text of the calibration mix",
    "evaluation": "another text",
}
_NUMBERS: Final = (
    "kl_mean_nats",
    "kl_mean_se_nats",
    "top1_agreement",
    "perplexity",
    "reference_perplexity",
    "cosine_distance_mean",
    "cosine_distance_max",
    "scored_tokens",
)
_SAMPLING: Final = ("temperature", "top_k", "top_p", "min_p")


def model_sheet(model: ServedModel, artifact: Artifact) -> dict[str, Any]:
    """The sheet of a model that is served from an artifact, as JSON."""
    config = artifact.config
    report, notes = _report(artifact)
    return {
        "name": model.name,
        "aliases": list(model.aliases),
        "context": model.context,
        "sampling": {name: getattr(model.sampling, name) for name in _SAMPLING},
        "family": config.family,
        "parameters": artifact.parameters,
        "layers": config.layers,
        "bytes": artifact.tensor_bytes,
        "bits_per_weight": artifact.bits_per_weight,
        "source": _text(report.get("model")),
        "stored": _text(report.get("stored")),
        "calibrated": None if not report else report.get("calibrated") is not False,
        "notes": notes,
        "measured": measurements(report),
        "matrices": [_matrix(name, linear) for name, linear in artifact.linears.items()],
    }


def _report(artifact: Artifact) -> tuple[dict[str, Any], list[str]]:
    """The report and its notes. A server does not need it, so one that is damaged is a note."""
    try:
        report = artifact.report or {}
    except ArtifactError as error:
        return {}, [printable(str(error))]
    notes = report.get("notes")
    found = notes if isinstance(notes, list) else []
    return report, [printable(note) for note in found if isinstance(note, str)]


def measurements(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a report says of the loss against the float model: `on` which text, and the numbers it has."""
    found = []
    for key, text in _MEASURED.items():
        part = report.get(key)
        if not isinstance(part, dict):
            continue
        numbers = {name: part[name] for name in _NUMBERS if _finite(part.get(name))}
        if numbers:
            found.append({"on": _text(part.get("text")) or text, **numbers})
    return found


def _matrix(name: str, linear: LinearSpec) -> dict[str, Any]:
    """One matrix; `layer` is None for those outside the layers."""
    weights = linear.rows * linear.cols
    widths: Counter[int] = Counter()
    for band in linear.bands:
        widths[band.bits] += band.rows
    inside = name.startswith("layers.")
    return {
        "layer": int(name.split(".")[1]) if inside else None,
        "role": name.split(".", 2)[2] if inside else name,
        "rows": linear.rows,
        "cols": linear.cols,
        "bits_per_weight": 8
        * packed_bytes(linear.rows, linear.cols, linear.bands, bias=linear.bias)
        / weights,
        "share_by_width": {str(bits): rows / linear.rows for bits, rows in sorted(widths.items())},
    }


def _finite(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _text(value: object) -> str | None:
    return printable(value) if isinstance(value, str) else None

"""The report of an artifact that was made from its weights alone: sizes, source, and how it was made."""

from typing import Any

from rockledge.artifact import ArtifactPlan
from rockledge.artifact.parts import heading, parts_table, size_numbers
from rockledge.artifact.provenance import Provenance
from rockledge.model.checkpoint import StoredCheckpoint
from rockledge.model.source_digest import source_digest

# What `convert` does, by the names of a recipe's steps (`quantization.steps`).
STEPS = {
    "rotate": "hadamard",
    "down_hadamard": True,
    "balance": False,
    "tables": "normal",
    "rounding": "nearest",
    "widths": "by a fixed rule",
}
NOT_CALIBRATED = "none; rounded to the nearest from the weights alone"


def report_numbers(checkpoint: StoredCheckpoint, plan: ArtifactPlan) -> dict[str, Any]:
    """For report.json: the same bytes for the same source. There is no `divergence`: nothing was compared."""
    return {
        "model": checkpoint.path.name,
        "stored": checkpoint.stored,
        "notes": list(checkpoint.notes),
        **size_numbers(plan),
        "calibrated": False,
        "source_sha256": source_digest(checkpoint),
    }


def report_text(numbers: dict[str, Any], made: Provenance) -> str:
    """report.md."""
    lines = [
        *heading(numbers),
        "",
        "Not calibrated; what that cost was not measured. `rockledge eval` measures it, and",
        "`rockledge quantize` without `--instant` makes a more accurate artifact.",
        "",
        *parts_table(numbers),
        "",
        *made.lines(),
    ]
    return "\n".join(lines) + "\n"

"""The model card of an artifact on the Hugging Face Hub: its report, below what the Hub wants to know."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from rockledge.artifact.layout import REPORT_TEXT
from rockledge.model.hub_push import LIBRARY
from rockledge.units import show_size

if TYPE_CHECKING:
    from rockledge.artifact import Artifact


def model_card(artifact: Artifact, name: str, licence: str | None = None) -> str:
    """README.md of the repository `name`. `licence` is its id on the Hub; by default that of the source,
    where the report knows it. The keys are those of https://huggingface.co/docs/hub/model-cards."""
    return f"---\n{yaml.safe_dump(_front(artifact, licence), sort_keys=False)}---\n\n{_text(artifact, name)}"


def _front(artifact: Artifact, licence: str | None) -> dict[str, Any]:
    source = (artifact.report or {}).get("source") or {}
    front: dict[str, Any] = {"library_name": LIBRARY, "tags": [LIBRARY, "rk3588"]}
    if licence is not None:
        front["license"] = licence
    elif source.get("licence"):
        front["license"] = source["licence"]
        for key in ("name", "link"):
            if source.get(f"licence_{key}"):
                front[f"license_{key}"] = source[f"licence_{key}"]
    if source.get("hub_id"):
        front |= {"base_model": source["hub_id"], "base_model_relation": "quantized"}
    front["pipeline_tag"] = "feature-extraction" if artifact.config.headless else "text-generation"
    return front


def _text(artifact: Artifact, name: str) -> str:
    report = artifact.path / REPORT_TEXT
    if report.is_file():
        text = report.read_text(encoding="utf-8", errors="replace").rstrip()
    else:
        text = (
            f"# {name}\n\n{show_size(artifact.tensor_bytes)}, {artifact.bits_per_weight:.3f} bits a weight. "
            "There is no report of what that cost."
        )
    command = "embed" if artifact.config.headless else "run"
    return f'{text}\n\n## Use it\n\n```\nrockledge {command} {name} "..."\n```\n'

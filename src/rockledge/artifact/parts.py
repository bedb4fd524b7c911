"""Size and widths of an artifact, as a whole and by part: for report.json, and for people in report.md."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from rockledge.artifact.layout import ArtifactPlan, packed_size
from rockledge.formats.bands import packed_bytes


def size_numbers(plan: ArtifactPlan) -> dict[str, Any]:
    """Size as a whole and by part (all layers' linears of one role together)."""
    parts: dict[str, list[str]] = defaultdict(list)
    for name in plan.linears:
        parts[name.split(".", 2)[-1]].append(name)
    total = packed_size(plan)
    return {
        "parameters": plan.parameters,
        "tensor_bytes": total,
        "bits_per_weight": 8 * total / plan.parameters,
        "parts": [_part(plan, role, names) for role, names in parts.items()],
    }


def _part(plan: ArtifactPlan, role: str, names: Sequence[str]) -> dict[str, Any]:
    specs = [plan.linears[name] for name in names]
    weights = sum(spec.rows * spec.cols for spec in specs)
    size = sum(packed_bytes(spec.rows, spec.cols, spec.bands, bias=spec.bias) for spec in specs)
    by_bits: dict[str, int] = defaultdict(int)
    for spec in specs:
        for band in spec.bands:
            by_bits[str(band.bits)] += band.rows * spec.cols
    shares = {bits: count / weights for bits, count in sorted(by_bits.items())}
    return {"part": role, "weights": weights, "bits_per_weight": 8 * size / weights, "share_by_width": shares}


def heading(numbers: Mapping[str, Any]) -> list[str]:
    """How report.md begins: the model, its size, and the notes."""
    size = (
        f"{numbers['tensor_bytes'] / 1e6:.1f} MB, {numbers['bits_per_weight']:.3f} bits a weight over "
        f"{numbers['parameters'] / 1e6:.1f} M parameters (all tensors counted, a tied matrix once)."
    )
    return [f"# {numbers['model']}", "", size, "", *(f"Note: {note}" for note in numbers["notes"])]


def parts_table(numbers: Mapping[str, Any]) -> list[str]:
    """Bits by part, in Markdown."""
    lines = [
        "## Bits by part",
        "",
        "| part | weights | bits a weight | 2 bits | 3 bits | 4 bits | 8 bits |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for part in numbers["parts"]:
        shares = " | ".join(
            f"{100 * part['share_by_width'].get(bits, 0):.0f} %" for bits in ("2", "3", "4", "8")
        )
        width = f"{part['weights'] / 1e6:.1f} M | {part['bits_per_weight']:.2f}"
        lines.append(f"| {part['part']} | {width} | {shares} |")
    return lines

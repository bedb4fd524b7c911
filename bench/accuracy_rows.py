"""One row of the accuracy table, and the cache that lets a killed run go on where it was."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from bench.llama_cpp import LlamaDivergence
from bench.machine import commit
from bench.models import cache
from rockledge.eval.divergence import DivergenceReport

_SOURCES = ("quantization", "conversion", "formats", "artifact", "model", "runtime")


@dataclass(frozen=True)
class Row:
    """`name` is the budget in bits for us, the type for llama.cpp; sizes count all tensors. `commit` of this
    repository is what it was measured with."""

    model: str
    engine: str
    name: str
    bytes: int
    bits_per_weight: float
    kl_mean_nats: float
    kl_p99_nats: float
    top1_agreement: float
    perplexity: float
    commit: str


@dataclass(frozen=True)
class Measured:
    """A row with what the table shows beside it: the standard error of the mean, and the float model's
    perplexity in the same engine's own reference run."""

    row: Row
    kl_mean_se_nats: float
    reference_perplexity: float


def measured(
    model: str,
    engine: str,
    name: str,
    size: int,
    parameters: int,
    report: DivergenceReport | LlamaDivergence,
) -> Measured:
    """The row of one report."""
    row = Row(
        model=model,
        engine=engine,
        name=name,
        bytes=size,
        bits_per_weight=8 * size / parameters,
        kl_mean_nats=report.kl_mean_nats,
        kl_p99_nats=report.kl_p99_nats,
        top1_agreement=report.top1_agreement,
        perplexity=report.perplexity,
        commit=commit(),
    )
    return Measured(row, report.kl_mean_se_nats, report.reference_perplexity)


def remembered(settings: dict[str, Any], measure: Callable[[], Measured]) -> Measured:
    """The row measured with these settings before, or a new one. `settings` is all that it depends on."""
    # With the names of its fields: a row that was kept without one of them is measured again.
    known = [settings, [field.name for field in fields(Row)]]
    key = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:24]
    path = cache() / "accuracy" / f"{key}.json"
    if path.exists():
        body = json.loads(path.read_text())
        return Measured(Row(**body.pop("row")), **body)
    found = measure()
    path.parent.mkdir(exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(asdict(found)))
    partial.replace(path)
    return found


def code_digest() -> str:
    """What our rows depend on: a digest of everything that makes or runs an artifact."""
    root = Path(__file__).parents[1]
    folders = [root / "src/rockledge" / name for name in _SOURCES]
    files = [path for folder in folders for path in folder.rglob("*.py")]
    files += [path for path in (root / "native").iterdir() if path.suffix in (".cpp", ".hpp", ".h")]
    found = hashlib.sha256()
    for path in sorted(files):
        found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()

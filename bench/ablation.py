"""What every ingredient gains: the usual recipe, and the same with one thing left out.

    python -m bench.ablation [--model smollm2-135m] [--bits 3.5 4.25] [--windows 16] [--only NAME ...]

All rows are artifacts of the same budget, scored as in bench.accuracy on the same windows. The gain of an
ingredient is the divergence without it over the divergence with all, less one. Every run differs a little
from the next one (another seed turns the model otherwise): one other seed shows how much, and a gain that is
smaller is none. Writes bench/results/ablation.json.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from bench.accuracy_models import MODELS
from bench.accuracy_ours import Workshop
from bench.accuracy_task import Task, prepare
from bench.models import UnavailableError
from rockledge.errors import RockledgeError
from rockledge.quantization.calibration import calibrate
from rockledge.quantization.calibration.calibrate import BlockStatistics
from rockledge.quantization.rounding import measure
from rockledge.quantization.steps import FAST

RESULTS = Path(__file__).parent / "results"
WINDOWS = 16  # of 255 scored tokens each: 4,080
ALL = "everything"


@dataclass(frozen=True)
class Variant:
    """`lines` of a recipe; `even`: the same widths for all matrices; `outside`: replaces in the code what no
    recipe can leave out."""

    name: str
    lines: str = ""
    even: bool = False
    outside: Callable[[], AbstractContextManager[None]] = nullcontext


def _step(line: str) -> str:
    return f"steps: {{{line}}}\n"


@contextmanager
def _unweighted() -> Iterator[None]:
    """Prices that are output errors: every output of every linear matters alike."""
    inner = calibrate.block_statistics

    def flat(*arguments: Any) -> tuple[BlockStatistics, Any]:
        statistics, gradients = inner(*arguments)
        ones = {role: torch.ones_like(values) for role, values in statistics.sensitivity.items()}
        return replace(statistics, sensitivity=ones), gradients

    with patch.object(measure, "block_statistics", flat):
        yield


VARIANTS = (
    Variant(ALL),
    Variant("another seed", "seed: 1\n"),
    Variant("tokens weighed by gradient", _step("token_weights: equal")),
    Variant("channels balanced", _step("balance: false")),
    Variant("largest inputs rounded first", _step("activation_order: false")),
    Variant("three row scales tried", _step("scale_tries: 1")),
    Variant("channels sorted by price", _step("channel_order: stored")),
    Variant("learned tables", _step("tables: normal")),
    Variant("clipping", _step("clip: false")),
    Variant("two planes by price", _step("planes: one")),
    Variant("widths by price (uniform instead)", even=True),
    Variant("half of the calibration tokens", "calibration: {tokens: 6144}\n"),
    Variant("error feedback (GPTQ)", _step("rounding: nearest")),
    Variant("all that --fast leaves out", f"steps: {asdict(FAST)}\n"),
    Variant("rotation of residual stream and heads", _step("rotate: none")),
    Variant("Hadamard before down", _step("down_hadamard: false")),
    Variant("prices weighted by Fisher information", outside=_unweighted),
)


@dataclass(frozen=True)
class Gain:
    """One row: the divergence of the artifact without an ingredient, of that with everything in the same run
    (rows in the file may be of several runs), what the ingredient gains, and the commit that was measured."""

    model: str
    bits: float
    without: str
    bits_per_weight: float
    kl_mean_nats: float
    kl_mean_se_nats: float
    everything_kl_nats: float
    gain: float
    commit: str


def gains(task: Task, budgets: Sequence[float], variants: Sequence[Variant]) -> Iterator[Gain]:
    """The rows of every variant at all budgets, first the artifacts with everything."""
    shared = Workshop(task)
    whole: dict[float, float] = {}
    for variant in variants:
        # What is replaced in the code is not in a work directory's fingerprint.
        workshop = shared if variant.outside is nullcontext else Workshop(task, apart=variant.name)
        for bits in budgets:
            name = f"{bits:g} without {variant.name}" if variant.name != ALL else f"{bits:g}"
            with variant.outside():
                found = workshop.row(name, bits, variant.lines, even=variant.even)
            row = found.row
            kl = row.kl_mean_nats
            base = whole.setdefault(bits, kl)
            error = found.kl_mean_se_nats
            gain = kl / base - 1
            yield Gain(row.model, bits, variant.name, row.bits_per_weight, kl, error, base, gain, row.commit)
        if workshop is not shared:
            workshop.close()
    shared.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints the table, writes the results; 1 when something needed is missing."""
    parser = argparse.ArgumentParser(prog="python -m bench.ablation", description="what every step gains")
    parser.add_argument("--model", choices=sorted(MODELS), default="smollm2-135m")
    parser.add_argument("--bits", type=float, nargs="*", default=[3.5, 4.25])
    parser.add_argument("--windows", type=int, default=WINDOWS)
    parser.add_argument("--only", nargs="*", metavar="NAME", help="ingredients (default: all)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args(arguments)
    variants = [v for v in VARIANTS if args.only is None or v.name in (ALL, *args.only)]
    rows: list[Gain] = []
    try:
        task = prepare(MODELS[args.model], args.windows, args.threads)
        for row in gains(task, args.bits, variants):
            rows.append(row)
            write(rows, RESULTS / "ablation.json", args.windows)
    except (UnavailableError, RockledgeError) as error:
        print(error, file=sys.stderr)
        return 1
    print(table(rows))
    return 0


def write(rows: Sequence[Gain], target: Path, windows: int) -> None:
    """Merges the rows into the results file."""
    found = json.loads(target.read_text())["rows"] if target.exists() else []
    new = {(row.model, row.bits, row.without) for row in rows}
    kept = [row for row in found if (row["model"], row["bits"], row["without"]) not in new]
    target.parent.mkdir(exist_ok=True)
    content = {"windows": windows, "rows": [*kept, *(asdict(row) for row in rows)]}
    target.write_text(json.dumps(content, indent=1) + "\n")


def table(rows: Sequence[Gain]) -> str:
    """The rows as aligned text."""
    lines = [f"{'without':<44}{'budget':>8}{'bits':>7}{'KL mean':>19}{'gain':>9}"]
    for row in rows:
        kl = f"{row.kl_mean_nats:.5f} ± {row.kl_mean_se_nats:.5f}"
        lines.append(f"{row.without:<44}{row.bits:>8g}{row.bits_per_weight:>7.3f}{kl:>19}{row.gain:>+9.1%}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

"""Cortex-A76 without one: instructions a token under an emulator, cycles of the inner loops simulated.

    python -m bench.a76 [ARTIFACT] [--json] [--out FILE]

Both figures are the same on every run and every machine with the same compiler. Instructions are those of
the whole process, Python and sampling included, one thread: prefill between prompts of 113 and 303 tokens,
decode between answers of 8 and 24 tokens after a prompt of 5. llama.cpp's are published ones of its aarch64
build at Q4_0, counted the same way on another day. Without ARTIFACT the packaged SmolLM2-135M is compressed
to 4.25 bits, once. How much 3 bits cost more than 4 makes the figure depend on the artifact's widths, so the
result holds those too. Writes bench/results/a76.json.
"""

import argparse
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import kernel_cycles
from bench.a76.counts import by_function, per_token
from bench.a76.emulator import Run, Sizes, count
from bench.models import UnavailableError, cache, smollm2
from rockledge.artifact import Artifact, open_artifact

RESULTS = Path(__file__).parent.parent / "results" / "a76.json"
PUBLISHED = {
    # llama.cpp commit 0c1e57098, armv8.2-a+dotprod+fp16, REPACK, 1 thread; difference of two runs.
    "decode": 39.7e6,
    "prefill": 25.2e6,  # tokens 113 to 303, the same as ours
}
LIMITS = {"decode": 1.3, "prefill": 0.9}
CODES_GB_S = 40.0
SDOT_SHARE = 0.85
SDOT_PEAK = 32.0  # products a cycle: two pipes, sixteen each
LEAST = 500  # instructions a token of a function worth naming
SHOWN = 14  # functions in the table


def default_artifact() -> Path:
    """The packaged SmolLM2-135M at 4.25 bits, made when it is not in the cache."""
    target = cache() / "a76" / "smollm2-4.25"
    if not (target / "model.safetensors").exists():
        print(f"compressing SmolLM2-135M into {target}", file=sys.stderr)
        target.parent.mkdir(exist_ok=True)
        command = [Path(sys.executable).parent / "rockledge", "quantize", smollm2(), "-o", target]
        done = subprocess.run([*map(str, command), "--bits", "4.25"], stdout=sys.stderr)
        if done.returncode != 0:
            raise UnavailableError("the artifact could not be made; give one of your own")
    return target


def instructions(run: Run, sizes: Sizes) -> dict[str, Any]:
    """Per kind of token: instructions, the ratio to llama.cpp's, and instructions by function."""
    phases = {"prefill": (1, 2, sizes.long - sizes.short), "decode": (3, 4, sizes.many - sizes.few)}
    found = {}
    for kind, (few, many, tokens) in phases.items():
        blocks = per_token(run.phases[few], run.phases[many], tokens)
        total = sum(blocks.values())
        found[kind] = {
            "instructions_per_token": round(total),
            "llama_cpp_q4_0": PUBLISHED[kind],
            "ratio": round(total / PUBLISHED[kind], 4),
            "functions": {
                name: round(spent)
                for name, spent in by_function(blocks, run.maps, run.names).items()
                if abs(spent) >= LEAST
            },
        }
    return found


def weights_by_bits(artifact: Artifact) -> dict[str, int]:
    """Weights of all linears, embedding and head once each, by code width."""
    found: Counter[str] = Counter()
    for name in artifact.linears:
        linear = artifact.linear(name)
        for band in linear.bands:
            found[str(band.bits)] += band.rows * linear.cols
    return dict(sorted(found.items()))


def loops() -> list[dict[str, Any]]:
    """The inner loops, simulated; empty, with a note, where llvm-mca is missing."""
    if missing := kernel_cycles.missing_tools():
        print(f"no cycles: {', '.join(missing)} not found", file=sys.stderr)
        return []
    return [asdict(loop) for loop in kernel_cycles.measure()]


@dataclass(frozen=True)
class Goal:
    """`value` should be at least `least` and at most `most`; None where there is no such bound."""

    goal: str
    value: float
    least: float | None = None
    most: float | None = None

    @property
    def met(self) -> bool:
        """Whether it is."""
        enough = self.least is None or self.value >= self.least
        return enough and (self.most is None or self.value <= self.most)


def goals(counted: dict[str, Any], simulated: Sequence[dict[str, Any]]) -> list[Goal]:
    """Every goal with what was reached."""
    found = [
        Goal(f"{kind}: instructions over llama.cpp's", counted[kind]["ratio"], most=limit)
        for kind, limit in LIMITS.items()
    ]
    for loop in simulated:
        if (loop["work"], loop["rows"]) == (kernel_cycles.STREAMED, 1) and loop["bits"] in (4, 8):
            what = f"decode, {loop['bits']} bits: GB/s of codes that four cores consume"
            found.append(Goal(what, loop["code_gb_s"], least=CODES_GB_S))
        if (loop["work"], loop["rows"]) == (kernel_cycles.PRODUCT, 8):
            share = round(loop["macs_per_cycle"] / SDOT_PEAK, 4)
            found.append(Goal("prefill: share of the sdot peak", share, least=SDOT_SHARE))
    return found


def table(result: dict[str, Any]) -> str:
    """All of it for people."""
    lines = [f"{result['artifact']}, {result['bits_per_weight']:.2f} bits a weight, one thread, kernel neon"]
    for kind in PUBLISHED:
        part = result[kind]
        lines.append(
            f"\n{kind}: {part['instructions_per_token'] / 1e6:.2f} M instructions a token, llama.cpp's Q4_0 "
            f"{part['llama_cpp_q4_0'] / 1e6:.1f} M (published): {part['ratio']:.2f}"
        )
        for name, spent in list(part["functions"].items())[:SHOWN]:
            lines.append(f"  {spent / 1e6:9.3f} M  {name}")
    lines.append("\nwork      bits  rows  instructions/tile  cycles/tile  MAC/cycle  GB/s, 4 cores")
    for loop in result["loops"]:
        lines.append(
            f"{loop['work']:<9}{loop['bits']:5}{loop['rows'] or '-':>6}{loop['instructions']:19.1f}"
            f"{loop['cycles']:13.2f}{loop['macs_per_cycle'] or '-':>11}{loop['code_gb_s'] or '-':>15}"
        )
    lines.append("")
    for goal in result["goals"]:
        wanted = f">= {goal['least']}" if goal["least"] is not None else f"<= {goal['most']}"
        lines.append(f"{'met   ' if goal['met'] else 'MISSED'}  {goal['goal']}: {goal['value']} ({wanted})")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 1 when something needed is missing or a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.a76", description="an A76 counted and simulated")
    parser.add_argument("artifact", type=Path, nargs="?")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    sizes = Sizes()
    try:
        artifact = open_artifact((chosen.artifact or default_artifact()).resolve())
        counted = instructions(count(artifact.path, sizes), sizes)
    except UnavailableError as error:
        print(error, file=sys.stderr)
        return 1
    simulated = loops()
    judged = goals(counted, simulated)
    result = {
        "artifact": artifact.path.name,
        "bits_per_weight": round(artifact.bits_per_weight, 4),
        "weights_by_bits": weights_by_bits(artifact),
        "tokens": asdict(sizes),
        **counted,
        "loops": simulated,
        "goals": [{**asdict(goal), "met": goal.met} for goal in judged],
    }
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result) if chosen.json else table(result))
    return int(not all(goal.met for goal in judged))


if __name__ == "__main__":
    raise SystemExit(main())

"""The rows of the speed table: what each measures, what it is compared with, and how the goal is judged.

A row is a function from the setting (threads, runs) to raw figures. Runs of both sides alternate, so that
both have the same neighbours; every figure is a list with one value a run, and a ratio is one of medians.
"""

import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import speed_models as models
from bench.machine import endless_loops
from bench.speed_runs import llama_batched, llama_bench, ours, output

Runs = dict[str, list[float]]
BUFFER = "2G"
LIMIT = 8 << 30  # bytes of address space for the largest model
DECODE_TYPES = ("Q4_0", "Q4_K_M")
PREFILL_TYPES = ("Q4_0", "Q4_K_M", "Q8_0", "F16", "BF16")
CONTEXT = 8192
FULL = CONTEXT - 64  # tokens before those that are written, so that all fit into CONTEXT


@dataclass(frozen=True)
class Setting:
    """Threads of both sides, and alternating runs of each."""

    threads: int
    runs: int


@dataclass(frozen=True)
class Goal:
    """A figure that must be reached (or, `at_most`, at most)."""

    value: float
    wanted: float
    at_most: bool = False

    @property
    def met(self) -> bool:
        """Whether it is."""
        return self.value <= self.wanted if self.at_most else self.value >= self.wanted


@dataclass(frozen=True)
class Row:
    """Raw figures by what was run, what the row states beside them, and its goals by name."""

    runs: Runs
    facts: dict[str, Any]
    goals: dict[str, Goal]


def alternating(runs: int, sides: Mapping[str, Callable[[], float]]) -> Runs:
    """Every side in turn, `runs` times."""
    found: Runs = {side: [] for side in sides}
    for number in range(runs):
        for side, run in sides.items():
            found[side].append(round(run(), 3))
            print(f"  run {number + 1} of {runs}: {side} {found[side][-1]:.2f}", file=sys.stderr, flush=True)
    return found


def medians(runs: Runs) -> dict[str, float]:
    """The middle of every side's values."""
    return {side: statistics.median(values) for side, values in runs.items()}


def decode(shape: str, generate: int, at: Setting) -> Row:
    """Tokens a second of one sequence from its beginning; bytes of weights a second over the read bandwidth.

    The share is that of the median run in small pages, each run against the bandwidth measured in it.
    """
    artifact, shares, huge = models.artifact(shape), [], []
    bits: dict[str, float] = {}

    def run_ours() -> float:
        sizes = ("--prompt", 1, "--generate", generate, "--repeat", 3, "--read-buffer", BUFFER)
        found = ours(artifact, at.threads, *sizes)
        weights_gb_s = found["step_mb"] / 1e3 * found["decode_tok_s"]
        shares.append(round(weights_gb_s / found["read_small_pages_gb_s"], 4))
        huge.append(round(weights_gb_s / found["read_gb_s"], 4))
        bits["bits_per_weight"] = found["bits_per_weight"]
        return float(found["decode_tok_s"])

    sides: dict[str, Callable[[], float]] = {"rockledge": run_ours}
    for kind in DECODE_TYPES:
        model = models.llama_file(shape, kind, at.threads)
        sides[kind] = lambda model=model: llama_bench(model, at.threads, "-p", 0, "-n", generate)[0]  # type: ignore[misc]
    runs = alternating(at.runs, sides)
    runs |= {"share_of_small_page_bandwidth": shares, "share_of_best_bandwidth": huge}
    middle = medians(runs)
    ratio = middle["rockledge"] / max(middle[kind] for kind in DECODE_TYPES)
    goals = {"ratio": Goal(ratio, 1.4)}
    if shape != "135m":
        goals["roofline_share"] = Goal(middle["share_of_small_page_bandwidth"], 0.8)
    return Row(runs, bits, goals)


def prefill(shape: str, lengths: Sequence[int], at: Setting) -> Row:
    """Prompt tokens a second at every length, against the llama.cpp type that is best in a trial run."""
    artifact = models.artifact(shape)
    runs: Runs = {}
    facts: dict[str, Any] = {}
    ratios = []
    for length in lengths:
        files = {kind: models.llama_file(shape, kind, at.threads) for kind in PREFILL_TYPES}
        trial = {
            kind: llama_bench(file, at.threads, "-p", length, "-n", 0)[0] for kind, file in files.items()
        }
        best = max(trial, key=lambda kind: trial[kind])
        facts[f"trial_{length}"] = {kind: round(speed, 2) for kind, speed in trial.items()}
        sizes = ("--prompt", length, "--depth", 1, "--generate", 1, "--repeat", 2)
        mine, their = f"rockledge {length}", f"{best} {length}"
        runs |= alternating(
            at.runs,
            {
                mine: lambda sizes=sizes: float(ours(artifact, at.threads, *sizes)["prefill_tok_s"]),  # type: ignore[misc]
                their: lambda length=length, file=files[best]: llama_bench(  # type: ignore[misc]
                    file, at.threads, "-p", length, "-n", 0
                )[0],
            },
        )
        ratios.append(statistics.median(runs[mine]) / statistics.median(runs[their]))
        facts[f"ratio_{length}"] = round(ratios[-1], 3)
    return Row(runs, facts, {"ratio": Goal(min(ratios), 2.0)})


def batch(shape: str, sequences: int, at: Setting) -> Row:
    """Tokens per second of several sequences together, after 128 tokens each."""
    artifact, prompt, generate = models.artifact(shape), 128, 32
    sizes = ("--prompt", prompt, "--generate", generate, "--repeat", 2, "--batch", sequences)
    sides: dict[str, Callable[[], float]] = {
        "rockledge": lambda: float(ours(artifact, at.threads, *sizes)["decode_tok_s"])
    }
    for kind in DECODE_TYPES:
        model = models.llama_file(shape, kind, at.threads)
        sides[kind] = lambda model=model: llama_batched(model, at.threads, sequences, prompt, generate)  # type: ignore[misc]
    runs = alternating(at.runs, sides)
    middle = medians(runs)
    ratio = middle["rockledge"] / max(middle[kind] for kind in DECODE_TYPES)
    return Row(runs, {"sequences": sequences}, {"ratio": Goal(ratio, 2.0)})


def long_context(shape: str, at: Setting) -> Row:
    """Tokens per second after nearly 8,192 tokens over those at the start, and what the bytes allow."""
    artifact = models.artifact(shape)
    near: list[float] = []
    far: list[float] = []
    sizes = ("--prompt", 1, "--depth", 1, FULL, "--generate", 32, "--repeat", at.runs)
    found = ours(artifact, at.threads, *sizes)
    for one, runs in zip(found["decode"], (near, far), strict=True):
        runs += one["tok_s_runs"]
    bytes_near, bytes_far = (one["gb_s"] / one["tok_s"] for one in found["decode"])
    ratio = (statistics.median(far) / statistics.median(near)) / (bytes_near / bytes_far)
    runs_of = {"tok_s at 1": near, f"tok_s at {FULL}": far}
    facts = {"bytes_ratio": round(bytes_near / bytes_far, 4)}
    return Row(runs_of, facts, {"of_what_bytes_allow": Goal(ratio, 0.85)})


def contention(shape: str, at: Setting) -> Row:
    """Decode with no, one and two endless loops beside it, at two threads; llama.cpp also at one."""
    artifact = models.artifact(shape)
    model = models.llama_file(shape, "Q4_0", at.threads)
    sizes = ("--prompt", 1, "--generate", 96, "--repeat", 3)
    runs: Runs = {}
    for number in range(at.runs):
        print(f"  round {number + 1} of {at.runs}", file=sys.stderr, flush=True)
        for loops in (0, 1, 2):
            with endless_loops(loops):
                speeds = {
                    "rockledge": ours(artifact, at.threads, *sizes)["decode_tok_s"],
                    "rockledge, 1 thread": ours(artifact, 1, *sizes)["decode_tok_s"],
                    "llama.cpp": llama_bench(model, at.threads, "-p", 0, "-n", 96)[0],
                    "llama.cpp, 1 thread": llama_bench(model, 1, "-p", 0, "-n", 96)[0],
                }
            for side, speed in speeds.items():
                runs.setdefault(f"{side}, {loops} loops", []).append(round(speed, 2))
    middle = medians(runs)
    alone = middle["rockledge, 0 loops"]
    goals = {
        "kept_with_1_loop": Goal(middle["rockledge, 1 loops"] / alone, 0.62),
        "kept_with_2_loops": Goal(middle["rockledge, 2 loops"] / alone, 0.45),
        "of_best_alone": Goal(alone / max(alone, middle["rockledge, 1 thread, 0 loops"]), 0.95),
    }
    return Row(runs, {}, goals)


def large(at: Setting) -> Row:
    """An 8B shape after nearly 8,192 tokens, in a process that cannot have more than 8 GiB."""
    artifact = models.artifact("8b")
    shares, speeds = [], []
    sizes = ("--prompt", 1, "--depth", FULL, "--generate", 16, "--repeat", at.runs, "--read-buffer", "1G")
    found = ours(artifact, at.threads, *sizes, limit=LIMIT)
    one = found["decode"][0]
    per_token = one["gb_s"] / one["tok_s"]
    for speed in one["tok_s_runs"]:
        speeds.append(speed)
        shares.append(round(speed * per_token / found["read_small_pages_gb_s"], 4))
    runs = {"tok_s": speeds, "share_of_small_page_bandwidth": shares, "peak_rss_mb": [found["peak_rss_mb"]]}
    goals = {
        "roofline_share": Goal(statistics.median(shares), 0.8),
        "peak_rss_mb": Goal(found["peak_rss_mb"], 6500.0, at_most=True),
    }
    return Row(runs, {"limit_bytes": LIMIT, "bits_per_weight": found["bits_per_weight"]}, goals)


def start(at: Setting) -> Row:
    """Seconds until 4 GB are usable from the page cache, and until a fresh process has its first token."""
    artifact = models.artifact("8b")
    usable = []
    first = []
    for _ in range(at.runs):
        sizes = ("--prompt", 1, "--generate", 1, "--repeat", 1)
        usable.append(float(ours(artifact, at.threads, *sizes)["load_s"]))
        begun = time.perf_counter()
        output(_first_token(artifact, at.threads))
        first.append(round(time.perf_counter() - begun, 3))
    goals = {"usable_s": Goal(statistics.median(usable), 1.0, at_most=True)}
    return Row({"usable_s": usable, "process_to_first_token_s": first}, {}, goals)


def _first_token(artifact: Path, threads: int) -> list[object]:
    command = [sys.executable, "-m", "rockledge", "run", artifact, "Hello", "--max-tokens", 1]
    return [*command, "--threads", threads]


ROWS: dict[str, Callable[[Setting], Row]] = {
    "decode_1b": lambda at: decode("1b", 32, at),
    "decode_135m": lambda at: decode("135m", 128, at),
    "prefill_1b": lambda at: prefill("1b", (128, 512), at),
    "prefill_135m": lambda at: prefill("135m", (128, 512), at),
    "batch8_1b": lambda at: batch("1b", 8, at),
    "batch8_135m": lambda at: batch("135m", 8, at),
    "context_8k": lambda at: long_context("1b", at),
    "contention": lambda at: contention("135m", at),
    "large_8b": large,
    "start": start,
}

"""Decode with the artifact's file in huge and in small pages of the page cache, in alternating runs.

    python -m bench.file_pages [--shape 1b] [--threads 1 2] [--runs 5]

Writing an artifact leaves none of it in the page cache, and opening one asks for huge pages, so that the
first reader brings it in like that. Small ones are made here by reading the file 4 KB at a time before.
Prints tokens a second, and how much of the file was mapped huge in each case; writes
bench/results/file_pages.json. Linux 6.16 and ext4 (or XFS) are needed for a difference.
"""

import argparse
import json
import os
import re
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import speed_models
from bench.machine import Foreign
from bench.models import UnavailableError
from bench.speed_rows import alternating
from bench.speed_runs import ours
from rockledge.artifact.layout import TENSORS
from rockledge.artifact.reader import open_artifact
from rockledge.synth import SHAPES

TARGET = Path(__file__).parent / "results" / "file_pages.json"
SMALL_PAGE = 4096


def forget(path: Path) -> None:
    """Takes a file out of the page cache, as far as it is not mapped."""
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_small(path: Path) -> None:
    """Brings a file into the page cache in pages of 4 KB."""
    forget(path)
    with open(path, "rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        while file.read(SMALL_PAGE):
            pass


def huge_share(artifact: Path) -> float:
    """The share of an artifact's file that is mapped as huge pages once all of it has been touched."""
    opened = open_artifact(artifact)
    opened.verify()
    file = (artifact / TENSORS).resolve()
    for mapping in re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text()):
        if str(file) in mapping.split("\n", 1)[0]:
            found = re.search(r"^FilePmdMapped:\s*(\d+) kB", mapping, re.MULTILINE)
            return int(found[1]) * 1024 / file.stat().st_size if found else 0.0
    raise UnavailableError(f"{file} is not mapped where it was opened")


def measure(artifact: Path, threads: int, runs: int, tokens: int) -> dict[str, Any]:
    """Medians and runs of both kinds of pages, and the share of huge ones."""
    file = artifact / TENSORS
    prepare = {"huge pages": forget, "small pages": read_small}
    shares: dict[str, float] = {}
    for name, bring in prepare.items():
        bring(file)
        shares[name] = round(huge_share(artifact), 3)

    def speed(name: str) -> float:
        prepare[name](file)
        sizes = ("--prompt", 1, "--generate", tokens, "--repeat", 3)
        return float(ours(artifact, threads, *sizes)["decode_tok_s"])

    foreign = Foreign()
    found = alternating(runs, {name: lambda name=name: speed(name) for name in prepare})  # type: ignore[misc]
    middle = {name: statistics.median(values) for name, values in found.items()}
    return {
        "threads": threads,
        "median": middle,
        "ratio": round(middle["huge pages"] / middle["small pages"], 3),
        "runs": found,
        "mapped_huge": shares,
        "taken_by_others": foreign.share(),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; see the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="1b")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=32)
    args = parser.parse_args(arguments)
    artifact = speed_models.artifact(args.shape)
    try:
        rows = [measure(artifact, threads, args.runs, args.tokens) for threads in args.threads]
    except UnavailableError as error:
        print(error, file=sys.stderr)
        return 1
    TARGET.write_text(
        json.dumps({"shape": args.shape, "kernel": os.uname().release, "rows": rows}, indent=1) + "\n"
    )
    for row in rows:
        for name, value in row["median"].items():
            mapped = f"{row['mapped_huge'][name]:.0%} mapped huge"
            print(f"{row['threads']} threads, {name}: {value:.1f} tok/s, {mapped}")
        print(f"  ratio {row['ratio']:.2f}, others took {row['taken_by_others']:.0%} of the machine")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

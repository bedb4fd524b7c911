"""One run of either side for the speed table: a process that loads the model, warms up, measures and ends."""

import json
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.llama_cpp import tool
from bench.machine import plain_environment
from bench.models import UnavailableError

SMALL_BUFFER = "16M"  # for runs whose read bandwidth is not used


def ours(artifact: Path, threads: int, *options: object, limit: int | None = None) -> dict[str, Any]:
    """The object of `rockledge bench ARTIFACT OPTIONS --json`; `limit`: most bytes of address space."""
    command = ["-m", "rockledge", "bench", artifact, "--threads", threads, *options]
    if "--read-buffer" not in options:
        command += ["--read-buffer", SMALL_BUFFER]
    return dict(json.loads(output([sys.executable, *command, "--json"], limit=limit)))


def llama_bench(model: Path, threads: int, *options: object) -> list[float]:
    """Tokens a second of every test of one `llama-bench` process with one repetition, in order."""
    command = [tool("llama-bench"), "-m", model, "-t", threads, "-r", 1, "-o", "json", *options]
    return [float(test["avg_ts"]) for test in json.loads(output(command))]


def llama_batched(model: Path, threads: int, sequences: int, prompt: int, generate: int) -> float:
    """Tokens a second of all sequences together while they are written, by `llama-batched-bench`."""
    sizes = ["-npp", prompt, "-ntg", generate, "-npl", sequences, "-c", sequences * (prompt + generate)]
    command = [tool("llama-batched-bench"), "-m", model, "-t", threads, *sizes, "--output-format", "jsonl"]
    lines = [line for line in output(command).splitlines() if line.startswith("{")]
    return float(json.loads(lines[-1])["speed_tg"])


def output(command: Sequence[object], *, limit: int | None = None) -> str:
    """Stdout of a program that must succeed. Raises UnavailableError with the end of its stderr."""
    words = [str(word) for word in command]
    before: Callable[[], None] | None = None
    if limit is not None:
        size = limit

        def before() -> None:
            resource.setrlimit(resource.RLIMIT_AS, (size, size))

    done = subprocess.run(words, capture_output=True, text=True, env=plain_environment(), preexec_fn=before)
    if done.returncode != 0:
        raise UnavailableError(f"{' '.join(words)} failed:\n{done.stderr[-1000:]}")
    return done.stdout

"""Decode and prefill speed of an artifact against llama.cpp's Q4_0 of the same model, in alternating runs.

    python -m bench.decode ARTIFACT [--gguf FILE] [--threads 2] [--prompt 128] [--generate 128] [--runs 5]

Every run is a process of its own on either side, one after the other, so that both have the same neighbours.
The share of the machine that other processes took in the meantime is part of the result: above a tenth of it
the two-thread figures of either side mean little. Decode starts after `--prompt` tokens of context on both
sides; ours includes sampling, theirs does not. The median of the runs counts. Without `--gguf` the model is
the packaged SmolLM2-135M. Writes a JSON file into bench/results/; when llama.cpp is missing it says so and
measures our side only.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.llama_cpp import converted, tool
from bench.machine import QUIET, Foreign, plain_environment, processor
from bench.models import UnavailableError, smollm2

RESULTS = Path(__file__).parent / "results"
SPEEDS = ("prefill_tok_s", "decode_tok_s")


def ours(artifact: Path, threads: int, prompt: int, generate: int) -> dict[str, Any]:
    """One run of `rockledge bench`: its JSON object."""
    options = ["--threads", threads, "--prompt", prompt, "--generate", generate]
    options += ["--repeat", 1, "--read-buffer", "16M"]
    return dict(_json([sys.executable, "-m", "rockledge", "bench", artifact, *options, "--json"]))


def theirs(model: Path, threads: int, prompt: int, generate: int) -> dict[str, float]:
    """One run of llama-bench for prefill and one for decode at the same depth, in tok/s."""
    common = [tool("llama-bench"), "-m", model, "-t", threads, "-r", 1, "-o", "json"]
    (prefill,) = _json([*common, "-p", prompt, "-n", 0])
    (decode,) = _json([*common, "-p", 0, "-n", generate, "-d", prompt])
    return {"prefill_tok_s": float(prefill["avg_ts"]), "decode_tok_s": float(decode["avg_ts"])}


def compare(
    artifact: Path, model: Path | None, *, threads: int, prompt: int, generate: int, runs: int
) -> dict[str, Any]:
    """Medians of `runs` alternating runs and their ratio, ours over theirs; without `model` only ours."""
    sides: dict[str, list[Mapping[str, Any]]] = {"rockledge": [], "llama.cpp": []}
    foreign = Foreign()
    for number in range(runs):
        print(f"run {number + 1} of {runs}", file=sys.stderr)
        sides["rockledge"].append(ours(artifact, threads, prompt, generate))
        if model is not None:
            sides["llama.cpp"].append(theirs(model, threads, prompt, generate))
    result: dict[str, Any] = {
        "artifact": artifact.name,
        "bits_per_weight": sides["rockledge"][0]["bits_per_weight"],
        "kernel": sides["rockledge"][0]["kernel"],
        "llama_cpp_model": None if model is None else model.name,
        "processor": processor(),
        "threads": threads,
        "prompt_tokens": prompt,
        "generated_tokens": generate,
        "taken_by_others": foreign.share(),
    }
    for speed in SPEEDS:
        every = {side: [round(float(run[speed]), 2) for run in of] for side, of in sides.items() if of}
        middle = {side: statistics.median(values) for side, values in every.items()}
        result[speed] = {"median": middle, "runs": every}
        if model is not None:
            result[speed]["ratio"] = round(middle["rockledge"] / middle["llama.cpp"], 3)
    return result


def table(result: Mapping[str, Any]) -> str:
    """The comparison for people, one line a speed."""
    lines = [f"{result['artifact']}, {result['threads']} threads, {result['processor']}"]
    for speed in SPEEDS:
        values = result[speed]
        line = f"  {speed.removesuffix('_tok_s'):8}{values['median']['rockledge']:8.1f} tok/s"
        if "ratio" in values:
            line += f", llama.cpp Q4_0{values['median']['llama.cpp']:8.1f} tok/s: {values['ratio']:.0%} of it"
        lines.append(line)
    if result["taken_by_others"] > QUIET:
        lines.append(f"  other processes took {result['taken_by_others']:.0%} of the machine: measure again")
    return "\n".join(lines)


def _json(command: Sequence[object]) -> Any:
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, env=plain_environment())
    if done.returncode != 0:
        raise UnavailableError(f"{' '.join(words)} failed:\n{done.stderr[-1000:]}")
    return json.loads(done.stdout)


def main() -> int:
    """Command line; see the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--gguf", type=Path, help="llama.cpp's file of the same model, any type")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--generate", type=int, default=128)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path, help="default: bench/results/decode-NAME-THREADSt.json")
    args = parser.parse_args()
    try:
        model: Path | None
        try:
            tool("llama-bench")
            model = args.gguf or converted(smollm2(), "Q4_0", args.threads)
        except UnavailableError as missing:
            print(f"without a comparison: {missing}", file=sys.stderr)
            model = None
        sizes = {"prompt": args.prompt, "generate": args.generate, "runs": args.runs}
        result = compare(args.artifact.resolve(), model, threads=args.threads, **sizes)
    except UnavailableError as error:
        print(error, file=sys.stderr)
        return 1
    print(table(result))
    target = args.out or RESULTS / f"decode-{result['artifact']}-{args.threads}t.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

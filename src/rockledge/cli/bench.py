"""`rockledge bench`: how fast an artifact reads and writes on this machine, and in how much memory."""

from __future__ import annotations

import argparse
import random
import resource
import statistics
import time
from typing import TYPE_CHECKING, Any

from rockledge.cli.command import Command
from rockledge.cli.engine_options import add_engine_arguments, load_engine, whole
from rockledge.cli.sizes import megabytes
from rockledge.cli.terminal import Terminal
from rockledge.errors import UsageError

if TYPE_CHECKING:
    from rockledge.runtime.engine import Engine


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `bench`."""
    parser.add_argument("artifact", metavar="DIR", help="artifact made by rockledge quantize or synth")
    parser.add_argument("--prompt", type=whole(1), default=128, metavar="N", help="tokens to read (128)")
    parser.add_argument("--generate", type=whole(2), default=64, metavar="N", help="tokens to write (64)")
    parser.add_argument("--repeat", type=whole(1), default=3, metavar="N", help="runs; the median counts (3)")
    add_engine_arguments(parser)


def run(args: argparse.Namespace, terminal: Terminal) -> dict[str, Any]:
    """Reads random prompts and writes as long as asked, whatever comes out."""
    start = time.perf_counter()
    with load_engine(args) as engine:
        load_s = time.perf_counter() - start
        if args.prompt + args.generate > engine.context:
            raise UsageError(
                f"{args.prompt} + {args.generate} tokens do not fit in the context of {engine.context}; "
                "ask for fewer or for a larger --ctx"
            )
        prefill, decode = measure(engine, args.prompt, args.generate, args.repeat, terminal)
        result = {
            "model": engine.name,
            "kernel": engine.kernel,
            "threads": engine.threads,
            "context_tokens": engine.context,
            "load_s": round(load_s, 3),
            "prompt_tokens": args.prompt,
            "prefill_tok_s": round(statistics.median(prefill), 2),
            "prefill_tok_s_runs": [round(speed, 2) for speed in prefill],
            "generated_tokens": args.generate,
            "decode_tok_s": round(statistics.median(decode), 2),
            "decode_tok_s_runs": [round(speed, 2) for speed in decode],
            "weights_mb": megabytes(engine.artifact.tensor_bytes),
            "bits_per_weight": round(engine.artifact.bits_per_weight, 4),
            "peak_rss_mb": peak_rss_mb(),
        }
    terminal.say(f"prefill  {result['prefill_tok_s']:8.1f} tok/s  ({args.prompt} tokens)")
    terminal.say(f"decode   {result['decode_tok_s']:8.1f} tok/s  ({args.generate} tokens)")
    terminal.say(
        f"memory   {result['peak_rss_mb']:8.1f} MB at most, {result['weights_mb']:.1f} MB of it weights"
    )
    terminal.say(f"loading  {result['load_s']:8.2f} s")
    return result


def measure(
    engine: Engine, prompt_tokens: int, generated: int, repeat: int, terminal: Terminal
) -> tuple[list[float], list[float]]:
    """Prefill and decode speeds in tok/s, one of each a run; every run has a random prompt of its own."""
    from rockledge.runtime.sampling import Sampling

    prefill, decode = [], []
    with terminal.progress() as advance:
        for run_number in range(repeat + 1):
            numbers = random.Random(run_number)
            prompt = [numbers.randrange(engine.config.vocab) for _ in range(prompt_tokens)]
            # Run 0 maps the weights in and is not counted.
            length = generated if run_number else 2
            for _ in engine.generate(prompt, max_tokens=length, sampling=Sampling(), ignore_eos=True):
                pass
            if run_number:
                prefill.append(engine.stats.prefill_tok_s)
                decode.append(engine.stats.decode_tok_s)
            advance("measuring", run_number, repeat)
    return prefill, decode


def peak_rss_mb() -> float:
    """The most memory this process has had resident, mapped weights included."""
    return megabytes(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


COMMAND = Command("bench", "measure speed and memory", add_arguments, run)

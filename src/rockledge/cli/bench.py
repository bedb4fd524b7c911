"""`rockledge bench`: speed of prefill and decode on this machine, and memory."""

from __future__ import annotations

import argparse
import resource
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rockledge.cli.bench_calibrate import add_calibrate_arguments, run_calibration
from rockledge.cli.bench_plot import check_plot, plot
from rockledge.cli.bench_sustained import add_sustained_arguments, run_sustained
from rockledge.cli.command import Command
from rockledge.cli.engine_options import add_engine_arguments, load_engine, size, tokens, whole
from rockledge.cli.overwrite import add_overwrite_argument, check_file
from rockledge.cli.sizes import counted, megabytes
from rockledge.cli.terminal import Terminal, table
from rockledge.errors import UsageError
from rockledge.units import show_size

if TYPE_CHECKING:
    from rockledge.runtime.speed import Decode, Prefill

READ_BUFFER = 1 << 30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `bench`."""
    parser.add_argument(
        "artifact", metavar="DIR", nargs="?", help="artifact made by rockledge quantize or synth"
    )
    _add_lengths(parser, "--prompt", [128], "prompt lengths for prefill, in tokens, such as 128 1k")
    _add_lengths(
        parser, "--depth", None, "tokens of context before decode, one or more (default: the first --prompt)"
    )
    _add_lengths(parser, "--batch", [1], "sequences decoded at once, one or more numbers")
    parser.add_argument("--generate", type=tokens(1), default=64, metavar="N", help="tokens to decode")
    parser.add_argument(
        "--repeat", type=whole(1), default=3, metavar="N", help="runs, of which the median is shown"
    )
    parser.add_argument(
        "--read-buffer",
        type=size,
        default=READ_BUFFER,
        metavar="SIZE",
        help="memory to measure the read bandwidth with, after the model is closed (default: 1G)",
    )
    parser.add_argument("--plot", type=Path, metavar="PNG", help="also plot the speeds (needs matplotlib)")
    add_sustained_arguments(parser)
    add_calibrate_arguments(parser)
    add_overwrite_argument(parser)
    add_engine_arguments(parser)


def _add_lengths(parser: argparse.ArgumentParser, flag: str, default: list[int] | None, about: str) -> None:
    parser.add_argument(flag, type=tokens(1), nargs="+", default=default, metavar="N", help=about)


def run(args: argparse.Namespace, terminal: Terminal) -> dict[str, Any]:
    """Measures prefill of random prompts, and decode without regard to what is generated."""
    if args.calibrate_board:
        if args.artifact is not None:
            raise UsageError(f"--calibrate-board measures without a model; leave {args.artifact} out")
        return run_calibration(args, terminal)
    if args.artifact is None:
        raise UsageError("give the artifact to measure, or --calibrate-board to measure the board alone")
    if args.sustained is not None:
        return run_sustained(args, terminal)
    if args.virtual_board is not None:
        raise UsageError("--virtual-board models a long run; give its --sustained TIME too")
    from rockledge.board.memory import PAGE_TOKENS
    from rockledge.runtime.native import read_bandwidth
    from rockledge.runtime.processor import this_processor
    from rockledge.runtime.speed import cache_tokens, measure_decode, measure_prefill

    if args.plot:
        check_plot(args.plot)
        check_file(args.plot, args.overwrite)
    depths = args.depth or args.prompt[:1]
    needed = max(
        max(args.prompt),
        *(cache_tokens(d, args.generate, n, PAGE_TOKENS) for d in depths for n in args.batch),
    )
    if args.ctx is not None and needed > args.ctx:
        raise UsageError(
            f"these lengths need a context of {needed} tokens, but --ctx is {args.ctx}; raise it"
        )
    args.ctx = args.ctx or needed
    # What is measured must not be found in the cache, nor be read in parts for the sake of others.
    options = {"prefixes": False, "parallel": max(args.batch), "step_s": 3600.0}
    start = time.perf_counter()
    with (
        load_engine(args, sequences=max(args.batch), check=False, options=options) as engine,
        terminal.progress() as advance,
    ):
        load_s = time.perf_counter() - start
        prefill = [
            measure_prefill(engine, length, args.repeat, partial(advance, f"prefill of {length} tokens"))
            for length in args.prompt
        ]
        decode = [
            measure_decode(
                engine,
                n,
                depth,
                args.generate,
                args.repeat,
                partial(advance, f"decode of {counted(n, 'sequence')} after {depth} tokens"),
            )
            for n in args.batch
            for depth in depths
        ]
        engine.verify()  # not beside what is measured
        machine = this_processor()
        result: dict[str, Any] = {
            "model": engine.name,
            "kernel": engine.kernel,
            "processor": machine.name,
            "clocks_mhz": list(machine.clocks_mhz),
            "threads": engine.threads,
            "bits_per_weight": round(engine.artifact.bits_per_weight, 4),
            "context_tokens": engine.context,
            "load_s": round(load_s, 3),
            "weights_mb": megabytes(engine.artifact.tensor_bytes),
            "step_mb": megabytes(engine.step_bytes),
            "native_mb": megabytes(engine.native_bytes),
            "peak_rss_mb": peak_rss_mb(),
            "npu": engine.npu.body(),
            "streaming": None if engine.streaming is None else engine.streaming.body(),
        }
        npu = engine.npu.line() if engine.npu.driver else None
    # The roof is the faster of both kinds of pages: weights in the page cache may lie in either.
    reads = [
        read_bandwidth(args.read_buffer, threads=result["threads"], huge=huge) / 1e9 for huge in (False, True)
    ]
    result |= {"read_gb_s": round(max(reads), 2), "read_small_pages_gb_s": round(reads[0], 2)}
    result |= figures(prefill, decode, max(reads))
    show(result, terminal)
    if npu is not None:
        terminal.print(npu)
    if args.plot:
        plot(result, args.plot)
        terminal.note(f"plot written to {args.plot}")
    return result


def figures(prefill: list[Prefill], decode: list[Decode], read_gb_s: float) -> dict[str, Any]:
    """The measured speeds as keys: those of the first length, batch and depth by themselves, then all."""

    def rounded(speeds: tuple[float, ...]) -> list[float]:
        return [round(speed, 2) for speed in speeds]

    return {
        "prompt_tokens": prefill[0].prompt_tokens,
        "prefill_tok_s": round(prefill[0].tok_s, 2),
        "prefill_tok_s_runs": rounded(prefill[0].tok_s_runs),
        "generated_tokens": decode[0].generated_tokens,
        "decode_tok_s": round(decode[0].tok_s, 2),
        "decode_tok_s_runs": rounded(decode[0].tok_s_runs),
        "prefill": [
            {
                "prompt_tokens": one.prompt_tokens,
                "tok_s": round(one.tok_s, 2),
                "tok_s_runs": rounded(one.tok_s_runs),
            }
            for one in prefill
        ],
        "decode": [
            {
                "sequences": one.sequences,
                "past_tokens": one.past_tokens,
                "tok_s": round(one.tok_s, 2),
                "tok_s_runs": rounded(one.tok_s_runs),
                "gb_s": round(one.bytes_s / 1e9, 3),
                "roofline_share": round(one.bytes_s / 1e9 / read_gb_s, 4),
            }
            for one in decode
        ],
    }


def show(result: dict[str, Any], terminal: Terminal) -> None:
    """Prints the figures for people."""
    clocks = f"{min(result['clocks_mhz'])} MHz, " if result["clocks_mhz"] else ""
    terminal.print(
        f"{result['model']} at {result['bits_per_weight']:.2f} bits a weight, kernel {result['kernel']}"
    )
    terminal.print(f"{result['processor']}, {clocks}{counted(result['threads'], 'thread')}")
    terminal.print()
    prefill = [
        ["prefill", str(one["prompt_tokens"]), "1", f"{one['tok_s']:.1f}", "", ""]
        for one in result["prefill"]
    ]
    decode = [
        [
            "decode",
            str(one["past_tokens"]),
            str(one["sequences"]),
            f"{one['tok_s']:.1f}",
            f"{one['gb_s']:.1f}",
            f"{100 * one['roofline_share']:.0f}",
        ]
        for one in result["decode"]
    ]
    head = ["", "tokens", "sequences", "tok/s", "GB/s", "% of bandwidth"]
    terminal.print(table(head, [*prefill, *decode]))
    terminal.print()
    terminal.print(
        f"read bandwidth {result['read_gb_s']:.1f} GB/s with {counted(result['threads'], 'thread')}"
    )
    if streaming := result["streaming"]:
        terminal.print(
            f"weights: {show_size(streaming['kept'])} stay in memory, {show_size(streaming['streamed'])} are "
            f"read in every step; {show_size(streaming['bytes_read'])} were read in all, and steps waited "
            f"{streaming['waited_seconds']:.1f} s for the disk"
        )
    terminal.print(
        f"peak resident memory {result['peak_rss_mb']:.1f} MB, weights {result['weights_mb']:.1f} MB; "
        f"loaded in {result['load_s']:.2f} s"
    )


def peak_rss_mb() -> float:
    """The most memory this process has had resident, mapped weights included."""
    return megabytes(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


COMMAND = Command("bench", "measure speed and memory", add_arguments, run)

"""`rockledge npu demo`: prefill of a small real model on a virtual NPU; which work ran where."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from rockledge.cli.answer import stream_answer
from rockledge.cli.command import Command
from rockledge.cli.demo import TEXT, compressed
from rockledge.cli.engine_options import whole
from rockledge.cli.overwrite import add_overwrite_argument
from rockledge.cli.sizes import counted
from rockledge.cli.terminal import Terminal
from rockledge.errors import NpuError

if TYPE_CHECKING:
    from rockledge.runtime.engine import Engine
    from rockledge_npu_lab.virtual.serve_device import VirtualNpu

PARAGRAPHS = 2  # of the demo's text; with the question more tokens than the NPU is modelled to pay from
QUESTION = "What does Alice see in this text?"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `npu demo`."""
    parser.add_argument("-o", "--output", default="demo-model", metavar="DIR", help="artifact")
    add_overwrite_argument(parser)
    parser.add_argument("--driver", default="rknpu", choices=("rknpu", "rocket"), help="driver to imitate")
    parser.add_argument("--max-tokens", type=whole(1), default=40, metavar="N", help="longest answer")
    parser.add_argument(
        "--npu-rows",
        type=whole(1),
        metavar="N",
        help="fewest tokens of a prefill step on the NPU (default: where it is modelled to be faster)",
    )


def run(args: argparse.Namespace, terminal: Terminal) -> dict[str, Any]:
    """Compresses the demo's model unless that is done, then answers with a virtual NPU and without.

    The exit code is 1 when the answers differ.
    """
    from rockledge.runtime.engine import Engine
    from rockledge.runtime.model import Model
    from rockledge.runtime.sampling import Sampling
    from rockledge_npu_lab.virtual.serve_device import VirtualNpu  # missing is said before minutes of work

    compressed(args.output, terminal, args.overwrite)
    prompt = demo_prompt()
    rows = [] if args.npu_rows is None else ["--npu-rows", str(args.npu_rows)]
    command = ["run", args.output, "-", "--max-tokens", str(args.max_tokens), "--npu", "require", *rows]
    terminal.print(f"\n$ rockledge npu emulate --driver {args.driver} -- rockledge {' '.join(command)}")
    terminal.print(f"\n> {prompt}\n")
    npu = VirtualNpu(args.driver, note=lambda text: terminal.note(f"virtual NPU: {text}"))
    answer, device = _on_virtual_npu(npu, command, prompt)
    terminal.print(answer["text"])
    with Engine.load(args.output, npu="off") as engine:
        places = where(engine, answer)
        alone = stream_answer(
            engine,
            Model(engine).tokens([{"role": "user", "content": prompt}]),
            Terminal(as_json=True),
            max_tokens=args.max_tokens,
            sampling=Sampling(),
        )
    same = alone.text == answer["text"]
    terminal.print("\nWhich work ran where:")
    for place, works in places.items():
        terminal.print("\n  ".join([place, *works]))
    terminal.print(f"\nWithout the NPU the answer is {'the same' if same else 'DIFFERENT'}.")
    return {
        "artifact": args.output,
        "answer": answer,
        "where": places,
        "device": device,
        "same_without_npu": same,
        "exit_code": 0 if same else 1,
    }


def demo_prompt() -> str:
    """The beginning of the demo's text, and a question about it."""
    text = files("rockledge.cli").joinpath(TEXT).read_text(encoding="utf-8")
    paragraphs = [" ".join(part.split()) for part in text.split("\n\n")]
    return " ".join([*paragraphs[:PARAGRAPHS], QUESTION])


def _on_virtual_npu(
    npu: VirtualNpu, command: Sequence[str], prompt: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the command prints with `--json`, in a process with a virtual NPU, and that NPU's summary."""
    from rockledge_npu_lab.virtual.preload import environment

    with npu:
        done = subprocess.run(
            [sys.executable, "-m", "rockledge", *command, "--json"],
            input=prompt,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(npu.address, os.environ),
            check=False,
        )
        npu.drain()
        device = asdict(npu.summary())
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        raise NpuError(f"the command ended with exit code {done.returncode} and no answer") from None
    if "error" in answer:
        raise NpuError(answer["error"])
    return answer, device


def where(engine: Engine, answer: Mapping[str, Any]) -> dict[str, list[str]]:
    """What the NPU did for an answer, and what the CPU: from the counters of the answer, and from the
    operations of an engine over the same artifact."""
    npu, prompt = answer["npu"], answer["prompt_tokens"]
    linears = "linear layers of the prompt (Q|K|V, O, gate|up, down)"
    names = Counter(name for name in engine.time_operations()[0] if name != "linear")
    operations = ", ".join(f"{count} {name}" for name, count in names.items())
    blocks, unpacked = npu["blocks"], npu["unpacked_bytes"] / 1e6
    on_npu = (
        f"{linears}: {npu['rows']} of {prompt} tokens, in {counted(npu['steps'], 'step')}, "
        f"{blocks} blocks of columns, {npu['jobs']} jobs, {npu['waited_seconds']:.1f} s of waiting for them"
    )
    on_cpu = [
        f"for the NPU: {unpacked:.1f} MB of int8 weights unpacked, sums of {blocks} blocks made floats",
        f"everything else of the prompt's {prompt} tokens: {operations}, and the head",
        f"the answer: {answer['completion_tokens']} tokens",
    ]
    if npu["rows"] < prompt or npu["fallbacks"]:
        left = f"{prompt - npu['rows']} tokens, and {npu['fallbacks']} steps that the NPU did not finish"
        on_cpu.append(f"{linears}: {left}")
    return {
        f"NPU ({npu['driver']} {npu['version']}, {npu['cores']} cores)": [on_npu],
        f"CPU ({engine.kernel} kernel, {counted(engine.threads, 'thread')})": on_cpu,
    }


COMMAND = Command(
    "demo", "run prefill of a real model on a virtual NPU, and show what ran where", add_arguments, run
)

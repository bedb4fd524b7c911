"""`rockledge plan`: whether a model fits a board, how fast it would be, and how to make it. All modelled."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rockledge.cli.command import Command
from rockledge.cli.engine_options import number, tokens, whole
from rockledge.cli.overwrite import add_overwrite_argument, check_file
from rockledge.cli.plan_plot import check_plot, plot
from rockledge.cli.sizes import counted, megabytes
from rockledge.cli.terminal import Terminal, table

if TYPE_CHECKING:
    from rockledge.board.boards import Board
    from rockledge.cli.planned_model import PlannedModel
    from rockledge.planning.advice import Advice
    from rockledge.planning.plan import Plan
    from rockledge.planning.ranges import Range
    from rockledge.planning.streaming import Streamed
    from rockledge.planning.warm import Warm, WarmPlan

_BASIS = "modelled"
_NEAREST_ROWS = 6
_FIGURES = (
    "memory_mb", "decode_tok_s", "prefill_tok_s", "ttft_ms", "npu_utilisation", "energy_j_per_token",
    "sustained", "would_fit", "command",
)  # fmt: skip
"""What a plan says, and does not where nothing of ours runs."""
_AMBIENT = 25.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `plan`."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="config.json, GGUF file, Hugging Face directory, artifact, Hub id, or a well-known name "
        "such as llama-3-8b",
    )
    boards = parser.add_mutually_exclusive_group()
    boards.add_argument(
        "--facts",
        type=Path,
        metavar="FILE",
        help="the machine that `rockledge bench --calibrate-board` has measured, in place of --board",
    )
    boards.add_argument(
        "--board", default="rk3588-8gb", metavar="B", help="such as rk3588-8gb-slow or rpi5-8gb"
    )
    parser.add_argument(
        "--context",
        type=tokens(1),
        metavar="N",
        help="tokens that a stream may have (default: 8k, or what the model was made for)",
    )
    parser.add_argument("--streams", type=whole(1), default=1, metavar="N", help="answers at a time")
    parser.add_argument(
        "--ambient",
        type=number(-20, 70),
        default=_AMBIENT,
        metavar="CELSIUS",
        help=f"of the room, for the speed after an hour (default: {_AMBIENT:g})",
    )
    parser.add_argument(
        "--cooling",
        metavar="NAME",
        help="passive, heat-sink, fan or bare (default: a line for each)",
    )
    parser.add_argument("--plot", type=Path, metavar="PNG", help="also plot the roofline (needs matplotlib)")
    add_overwrite_argument(parser)


def run(args: argparse.Namespace, terminal: Terminal) -> dict[str, Any]:
    """Plans, and shows it as tables."""
    from rockledge.board.boards import any_board
    from rockledge.board.facts_file import read_facts
    from rockledge.cli.planned_model import planned_model
    from rockledge.planning.advice import advice
    from rockledge.planning.plan import DEFAULT_CONTEXT, Plan
    from rockledge.planning.warm import warm_plans

    if args.plot:
        check_plot(args.plot)
        check_file(args.plot, args.overwrite)
    board = any_board(args.board) if args.facts is None else read_facts(args.facts).board
    model = planned_model(args.model)
    for note in model.notes:
        terminal.note(f"Note: {note}")
    if board.chip.refused:
        return _refused(board, model, terminal)
    if args.cooling is not None:
        board.cooling(args.cooling)  # a name that is not known is said before anything is computed
    context = args.context or min(DEFAULT_CONTEXT, model.config.context)
    plan = Plan(model.name, model.config, board, context, args.streams)
    warm = [] if plan.budget is None else warm_plans(plan, args.cooling, args.ambient)
    result = body(plan, model, None if plan.fits else advice(plan), warm, args.ambient)
    result["facts"] = None if args.facts is None else str(args.facts)
    show(result, terminal)
    if args.plot:
        plot(plan, args.plot)
        terminal.note(f"plot written to {args.plot}")
    return result


def body(
    plan: Plan, model: PlannedModel, would_fit: Advice | None, warm: Sequence[WarmPlan], ambient: float
) -> dict[str, Any]:
    """The object of `--json`. Widths, prompt lengths, coolings and disks are keys, as text; a range has low,
    likely, high. `warm`: what is left after an hour in a room of `ambient` °C."""
    from rockledge.planning.plan import DEFAULT_BITS

    parts = plan.room
    npu = parts.npu
    speeds: dict[str, Any] = {"ttft_ms": None, "npu_utilisation": {}, "energy_j_per_token": None}
    if plan.budget is not None:
        prompts = plan.speed.prompts().plan
        npu = 0 if prompts is None else prompts.bytes
        whole_prompt, rest = plan.prompt_tokens, plan.cached_tokens
        speeds = {
            "ttft_ms": {
                "prompt_tokens": whole_prompt,
                "cached_tokens": rest,
                "cold": _range(plan.speed.first_token(whole_prompt).map(_milliseconds), 0),
                "cached_prefix": _range(plan.speed.first_token(whole_prompt, rest).map(_milliseconds), 0),
            },
            "npu_utilisation": {str(n): round(share, 3) for n, share in plan.utilisation().items()},
            "energy_j_per_token": _energy(plan),
        }
    return {
        "model": plan.name,
        "source": model.source,
        "board": plan.board.name,
        "basis": _BASIS,
        "context_tokens": plan.context,
        "streams": plan.streams,
        "fits": plan.fits,
        "default_bits_per_weight": DEFAULT_BITS,
        "bits_per_weight": None if plan.budget is None else round(plan.budget, 2),
        "width": plan.width,
        "memory_mb": {
            "ram": megabytes(parts.ram),
            "system": megabytes(parts.system),
            "process": megabytes(parts.process),
            "available": megabytes(parts.available),
            "weights": megabytes(parts.weights),
            "kv_cache": megabytes(parts.cache),
            "arena": megabytes(parts.arena),
            "npu_buffers": megabytes(npu),
            "free": megabytes(parts.free + parts.npu - npu),
        },
        "longest_context_tokens": {str(one.bits): one.longest_context for one in plan.precisions},
        "most_streams": {str(one.bits): one.most_streams for one in plan.precisions},
        "size_mb": {str(one.bits): megabytes(one.weights) for one in plan.precisions},
        "decode_tok_s": {str(one.bits): _range(one.decode, 2) for one in plan.precisions},
        "prefill_tok_s": {str(one.bits): _range(one.prefill, 1) for one in plan.precisions},
        **speeds,
        "sustained": _sustained(warm, ambient) if warm else None,
        "would_fit": None
        if would_fit is None
        else {
            **vars(would_fit),
            "streaming": None if would_fit.streaming is None else _streaming(would_fit.streaming),
        },
        "command": quantize_command(plan, model.quantizable),
    }


def _energy(plan: Plan) -> dict[str, Any] | None:
    """None where nobody has published the power of the board."""
    energy = {what: _range(found, 3) for what, found in plan.energy().items()}
    return {**energy, "basis": f"published {plan.power_basis}"} if energy else None


def _sustained(warm: Sequence[WarmPlan], ambient: float) -> dict[str, Any]:
    from rockledge.board.governor import TARGET_CELSIUS

    return {
        "seconds": 3600,
        "ambient_celsius": ambient,
        "target_celsius": TARGET_CELSIUS,
        "coolings": {
            one.cooling.name: {
                "what": one.cooling.title,
                "basis": f"{one.cooling.kind}: {one.cooling.source}",
                "fast": vars(one.cooling.fast),
                "slow": vars(one.cooling.slow),
                "decode_tok_s": None if one.decode is None else _warm(one.decode, 2),
                "prefill_tok_s": _warm(one.prefill, 1),
            }
            for one in warm
        },
    }


def _warm(found: Warm, digits: int) -> dict[str, Any]:
    return {
        "cold": _range(found.cold, digits),
        "governed": _range(found.governed, digits),
        "ungoverned": _range(found.ungoverned, digits),
        "celsius_if_never_held_back": round(found.celsius, 1),
    }


def _streaming(found: Streamed) -> dict[str, Any]:
    return {
        "bits": found.bits,
        "memory_budget_mb": megabytes(found.budget),
        "resident_mb": megabytes(found.resident),
        "ring_mb": megabytes(found.ring),
        "read_mb_per_step": megabytes(found.read),
        "decode_tok_s": {disk: _range(one, 5) for disk, one in found.decode.items()},
        "prefill_tok_s": {disk: _range(one, 5) for disk, one in found.prefill.items()},
    }


def quantize_command(plan: Plan, model: str | None) -> str | None:
    """The command that makes the recommended artifact; None where nothing fits or `model` is no source."""
    if plan.budget is None or model is None:
        return None
    name = re.sub(r"[^\w.-]", "-", plan.name.lower())
    source, target = (_no_flag(path) for path in (model, f"{name}-{plan.board.name}"))
    return shlex.join(["rockledge", "quantize", source, "-o", target, "--bits", f"{plan.budget:.2f}"])


def _no_flag(path: str) -> str:
    """The same path, where a command cannot take it for a flag."""
    return f"./{path}" if path.startswith("-") else path


def show(result: dict[str, Any], terminal: Terminal) -> None:
    """The same for people."""
    streams = counted(result["streams"], "stream")
    bits = result["bits_per_weight"]
    board, context = _named(result["board"]), counted(result["context_tokens"], "token")
    verdict = "fits" if result["fits"] else "does not fit"
    ranges = "published of such boards" if result["facts"] is None else f"measured ({result['facts']})"
    terminal.print(
        f"{result['model']} on {board}, {context} for {streams}: {verdict} "
        f"at {result['default_bits_per_weight']} bits a weight. Every figure is modelled; ranges are from "
        f"what was {ranges}."
    )
    if result["would_fit"]:
        _show_advice(result, terminal)
    memory = result["memory_mb"]
    shown = f"{result['default_bits_per_weight'] if bits is None else bits:.2f}"
    rows = [(name.replace("_", " "), f"{memory[name]:,.0f}") for name in memory]
    terminal.print(f"\n{table((f'memory at {shown} bits', 'MB'), rows)}")
    terminal.print(f"\n{_speed_table(result)}")
    if bits is None:
        return
    terminal.print(f"\nWith all weights at {result['width']} bits:\n{_figures(result)}")
    if result["sustained"]:
        terminal.print(f"\n{_sustained_table(result['sustained'], each=result['streams'] > 1)}")
    else:
        terminal.print(f"\nToo little is published of the heat of {board} for a speed after an hour.")
    if result["command"]:
        terminal.print(f"\nTo make it:\n  {result['command']}")


def _named(board: str) -> str:
    from rockledge.board.facts_file import MEASURED

    return "the measured machine" if board == MEASURED else board


def _show_advice(result: dict[str, Any], terminal: Terminal) -> None:
    found = result["would_fit"]
    streams = result["streams"]
    ways = []
    if found["bits"] is not None:
        loss = ", which costs accuracy" if found["bits"] < 3.25 else ""
        ways.append(f"{found['bits']:.2f} bits a weight{loss}")
    if found["context"] is not None:
        ways.append(
            f"a context of {found['context']} tokens" + (f" for each of {streams}" if streams > 1 else "")
        )
    if found["narrow_context"] is not None:
        ways.append(
            f"2 bits a weight, which costs much accuracy, and a context of {found['narrow_context']} tokens"
            + (f" for each of {streams}" if streams > 1 else "")
        )
    if found["streams"] is not None and streams > 1:
        ways.append(counted(found["streams"], "stream"))
    if found["model"] is not None:
        ways.append(f"a smaller model such as {found['model']}")
    if found["streaming"] is not None:
        ways.append(_streaming_shown(found["streaming"]))
    ways = ways or ["nothing that is known; take a larger board"]
    terminal.print("What would fit:\n" + "\n".join(f"  {way}" for way in ways))


def _speed_table(result: dict[str, Any]) -> str:
    streams, context = result["streams"], result["context_tokens"]
    each = " each" if streams > 1 else ""
    head = (
        "all weights at", "size, MB", "longest context", f"streams of {context}", f"decode, tok/s{each}",
        "prefill, tok/s",
    )  # fmt: skip
    rows = [
        (
            f"{bits} bits",
            f"{result['size_mb'][bits]:,.0f}",
            str(result["longest_context_tokens"][bits] or "does not fit"),
            str(result["most_streams"][bits]),
            _shown(result["decode_tok_s"][bits], 1),
            _shown(result["prefill_tok_s"][bits], 0),
        )
        for bits in result["size_mb"]
    ]
    return table(head, rows)


def _sustained_table(found: dict[str, Any], *, each: bool) -> str:
    """A line for each cooling: the likely speeds, and how warm the chip would get."""

    def cell(speed: dict[str, Any] | None, way: str, digits: int) -> str:
        return "-" if speed is None else f"{speed[way]['likely']:,.{digits}f}"

    decode = "decode, tok/s each" if each else "decode, tok/s"
    after = f"after an hour at {found['ambient_celsius']:g} °C"
    head = (after, decode, "without governor", "prefill, tok/s", "without governor")
    rows = [
        (
            name,
            cell(one["decode_tok_s"], "governed", 1),
            cell(one["decode_tok_s"], "ungoverned", 1),
            cell(one["prefill_tok_s"], "governed", 0),
            cell(one["prefill_tok_s"], "ungoverned", 0),
        )
        for name, one in found["coolings"].items()
    ]
    return table(head, rows)


def _streaming_shown(found: dict[str, Any]) -> str:
    what = "decode" if found["decode_tok_s"] else "prefill"
    speeds = found[f"{what}_tok_s"].items()
    told = ", ".join(
        f"{one['likely']:.2g} ({one['low']:.2g} to {one['high']:.2g}) from {disk}" for disk, one in speeds
    )
    read = found["read_mb_per_step"] / 1e3
    budget = f"--memory-budget {found['memory_budget_mb'] / 1e3:.1f}G"
    return f"{found['bits']} bits and {budget}: {read:.1f} GB read in each step; {what}, tok/s: {told}"


def _figures(result: dict[str, Any]) -> str:
    first, energy, use = result["ttft_ms"], result["energy_j_per_token"], result["npu_utilisation"]
    rows = [
        (f"first token of a prompt of {first['prompt_tokens']} tokens, ms", _shown(first["cold"], 0)),
        (f"with {first['cached_tokens']} of them cached, ms", _shown(first["cached_prefix"], 0)),
    ]
    if energy is not None:
        rows.append((f"energy of a token of a prompt, J ({energy['basis']})", _shown(energy["prefill"], 3)))
    if energy is not None and "decode" in energy:
        rows.append(("energy of a decoded token, J", _shown(energy["decode"], 2)))
    if any(use.values()):
        shares = ", ".join(f"{share:.0%} at {length}" for length, share in use.items())
        rows.append(("use of the NPU by tokens of a prompt", shares))
    return "\n".join(f"  {what}: {value}" for what, value in rows)


def _refused(board: Board, model: PlannedModel, terminal: Terminal) -> dict[str, Any]:
    """Where nothing of ours runs: why, and what the vendor published of models of about that size."""
    from rockledge.planning.fit import parameters

    wanted = parameters(model.config)
    near = sorted(board.chip.published, key=lambda one: abs(one.parameters - wanted))[:_NEAREST_ROWS]
    reason = f"this program does not run on {board.name}: {board.chip.refused}"
    terminal.print(
        f"{reason}.\nWhat the vendor published of its own programs there, of models near this size:\n"
    )
    rows = [
        (one.model, one.quant, f"{one.prefill_tok_s:.1f}", f"{one.decode_tok_s:.1f}", f"{one.memory_mb:.0f}")
        for one in near
    ]
    terminal.print(table(("model", "weights", "prefill, tok/s", "decode, tok/s", "MB"), rows))
    return {
        "model": model.name,
        "source": model.source,
        "board": board.name,
        "fits": False,
        "reason": reason,
        **dict.fromkeys(_FIGURES),
        "published": [vars(one) for one in near],
        "exit_code": 1,
    }


def _range(found: Range | None, digits: int) -> dict[str, float] | None:
    if found is None:
        return None
    return {end: round(value, digits) for end, value in vars(found).items()}


def _milliseconds(seconds: float) -> float:
    return 1e3 * seconds


def _shown(found: dict[str, float] | None, digits: int) -> str:
    """The likely figure, and in brackets the ends."""
    if found is None:
        return "-"
    low, likely, high = (f"{found[end]:,.{digits}f}" for end in ("low", "likely", "high"))
    return f"{likely} ({low} to {high})"


COMMAND = Command("plan", "whether a model fits a board, and how fast it would be", add_arguments, run)

"""`rockledge bench --sustained`: whether speed after an hour is speed after a minute, as CSV and PNG.

On a board it runs answers for so long and reads sysfs; on a virtual board the models of time and heat are
run through in seconds. The governor is the server's.
"""

from __future__ import annotations

import argparse
import csv
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rockledge.cli.bench_plot import check_plot
from rockledge.cli.engine_options import load_engine, number
from rockledge.cli.governor_options import add_governor_arguments
from rockledge.cli.overwrite import check_file
from rockledge.cli.terminal import Terminal
from rockledge.errors import UsageError
from rockledge.units import show_duration

if TYPE_CHECKING:
    from rockledge.runtime.engine import Engine

CURVE = Path("sustained.csv")
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_LONGEST_S = 7 * 24 * 3600.0
_MINUTE = 60.0


@dataclass(frozen=True)
class Point:
    """One second of the curve; None is what the machine does not say. `throttled`: whether the kernel holds
    clocks back."""

    seconds: float
    decode_tok_s: float
    celsius: float | None
    cpu_mhz: int | None
    threads: int
    throttled: bool


def add_sustained_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of a long run."""
    parser.add_argument(
        "--sustained",
        type=duration,
        metavar="TIME",
        help="instead: decode for so long, such as 60m, and write speed and temperature as CSV and PNG",
    )
    parser.add_argument(
        "--curve",
        type=Path,
        default=CURVE,
        metavar="CSV",
        help=f"where to (default: {CURVE}; a PNG beside it)",
    )
    parser.add_argument(
        "--virtual-board",
        metavar="COOLING",
        help="model the long run on an RK3588 that is not there: passive, heat-sink, fan or bare",
    )
    parser.add_argument(
        "--ambient", type=number(-20, 70), default=25.0, metavar="CELSIUS", help="around a virtual board"
    )
    add_governor_arguments(parser)


def duration(text: str) -> float:
    """An argument that is a time: 90s, 60m, 2h; the seconds."""
    found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?)([smh])", text)
    seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if not 1 <= seconds <= _LONGEST_S:
        raise argparse.ArgumentTypeError(
            f"'{text[:60]}' is not a time such as 90s, 60m or 2h, of at most a week"
        )
    return seconds


def run_sustained(args: argparse.Namespace, terminal: Terminal) -> dict[str, Any]:
    """The long run, its files and its figures."""
    from rockledge.cli.sustained_plot import plot

    check_file(args.curve, args.overwrite)
    picture = args.curve.with_suffix(".png")
    if picture == args.curve:
        raise UsageError(
            f"{args.curve} is the name of the picture beside the curve; choose another, such as .csv"
        )
    check_plot(picture)
    check_file(picture, args.overwrite)
    points: list[Point] = []
    try:
        found = _modelled(args) if args.virtual_board else _measured(args, terminal)
        for point in _written(found, args.curve):
            points.append(point)
    except BaseException:
        if points:
            terminal.note(f"what was measured until then is in {args.curve}")
        raise
    basis = "modelled" if args.virtual_board else "measured"
    plot(points, f"{Path(args.artifact).name}, {basis}", picture)
    result = figures(points, basis) | {"curve": str(args.curve), "plot": str(picture)}
    _show(result, terminal)
    return result


def _written(points: Iterable[Point], curve: Path) -> Iterator[Point]:
    """The points, each of them after it was written: a run that ends early has lost nothing."""
    writer: csv.DictWriter[str] | None = None
    with ExitStack() as opened:
        for point in points:
            row = asdict(point)
            if writer is None:  # nothing is replaced before there is something to write
                file = opened.enter_context(open(curve, "w", encoding="utf-8", newline="", buffering=1))
                writer = csv.DictWriter(file, [*row])
                writer.writeheader()
            writer.writerow(
                {**row, "seconds": round(point.seconds, 2), "decode_tok_s": round(point.decode_tok_s, 3)}
            )
            yield point


def figures(points: list[Point], basis: str) -> dict[str, Any]:
    """The figures of a curve: speed of its first and last minute, the highest temperature."""
    last = points[-1].seconds
    warm = [point.celsius for point in points if point.celsius is not None]
    first_minute = [p.decode_tok_s for p in points if p.seconds <= _MINUTE]
    last_minute = [p.decode_tok_s for p in points if p.seconds > last - _MINUTE]
    return {
        "basis": basis,
        "sustained_s": round(last, 1),
        "first_minute_tok_s": round(sum(first_minute) / max(len(first_minute), 1), 3),
        "last_minute_tok_s": round(sum(last_minute) / max(len(last_minute), 1), 3),
        "mean_tok_s": round(sum(p.decode_tok_s for p in points) / len(points), 3),
        "highest_celsius": max(warm, default=None),
        "throttled_s": sum(point.throttled for point in points),
    }


def _show(result: dict[str, Any], terminal: Terminal) -> None:
    hottest = result["highest_celsius"]
    terminal.print(
        f"{show_duration(result['sustained_s'])} of decode, {result['basis']}: "
        f"{result['first_minute_tok_s']:.2f} tok/s in the first minute, "
        f"{result['last_minute_tok_s']:.2f} in the last, {result['mean_tok_s']:.2f} on average"
    )
    if hottest is not None:
        terminal.print(
            f"at most {hottest:.1f} °C, throttled by the kernel for {show_duration(result['throttled_s'])}"
        )
    terminal.note(f"written to {result['curve']} and {result['plot']}")


def _modelled(args: argparse.Namespace) -> Iterator[Point]:
    from rockledge.artifact import open_artifact
    from rockledge.board.boards import PROGRAMMED
    from rockledge.board.levers import Demand
    from rockledge.runtime.modelled_work import bands_of, work_of
    from rockledge.virtual_board.board import VirtualBoard
    from rockledge.virtual_board.sustained import constant, governed

    cooling = PROGRAMMED.cooling(args.virtual_board)
    artifact = open_artifact(args.artifact)
    sequences = max(args.batch)
    work = work_of(
        PROGRAMMED,
        artifact.config,
        bands_of(artifact),
        context=args.ctx or min(4096, artifact.config.context),
        threads=args.threads or int(PROGRAMMED.value("cpu_cores")),
        sequences=sequences,
        npu=False,  # answers do not need it
    )
    board, demand = VirtualBoard(work, cooling, args.ambient), Demand(sequences, False)
    if args.governor == "off":
        seconds = constant(board, work.full, lambda _: demand, args.sustained)
    else:
        seconds = governed(board, work, lambda _: demand, args.sustained, target=args.target_temperature)
    for one in seconds:
        yield Point(
            one.seconds,
            one.decode_tok_s,
            round(one.celsius, 2),
            round(one.cpu_hz / 1e6),
            one.setting.threads,
            one.cpu_hz < board.throttle.hz[0],
        )


def _measured(args: argparse.Namespace, terminal: Terminal) -> Iterator[Point]:
    from rockledge.board.memory import PAGE_TOKENS
    from rockledge.runtime.board_sysfs import BoardSysfs
    from rockledge.runtime.exchange import Adjust, ToEngine
    from rockledge.runtime.governing import make_governor
    from rockledge.runtime.npu_system import look
    from rockledge.runtime.speed import cache_tokens

    sequences = max(args.batch)
    depth = (args.depth or args.prompt[:1])[0]
    args.ctx = args.ctx or cache_tokens(depth, args.generate + 2, sequences, PAGE_TOKENS)
    options = {"prefixes": False, "parallel": sequences, "step_s": 3600.0}
    sysfs, rest, threads = BoardSysfs(), 0.0, 0
    with (
        load_engine(args, sequences=sequences, check=False, options=options) as engine,
        ExitStack() as closed,
    ):
        threads = engine.threads

        def send(message: ToEngine) -> None:
            nonlocal rest, threads
            if isinstance(message, Adjust):
                engine.adjust(message.setting)
                rest, threads = message.setting.rest, message.setting.threads

        governor = make_governor(
            args.governor, engine, sequences, args.target_temperature, send=send, stats=engine.stats
        )
        if governor is not None:
            closed.callback(governor.close)
        begun = time.perf_counter()
        with terminal.progress() as advance:
            done, since = 0, begun
            for seconds in _steps(engine, sequences, depth, args.generate):
                done += sequences
                if rest:
                    time.sleep(min(2.0, seconds * rest / (1 - rest)))
                now = time.perf_counter()
                if now - since < 1 and now - begun < args.sustained:
                    continue
                if governor is not None:
                    governor.tick()
                clocks = [clock.current for clock in look().processors]
                yield Point(
                    now - begun,
                    done / (now - since),
                    sysfs.celsius(),
                    round(min(clocks) / 1e6) if clocks else None,
                    threads,
                    sysfs.throttled(),
                )
                advance("decode", round(now - begun), round(args.sustained))
                if now - begun >= args.sustained:
                    break
                done, since = 0, time.perf_counter()


def _steps(engine: Engine, sequences: int, past: int, generated: int) -> Iterator[float]:
    """Seconds of one step of decode after another, without end; after `generated` tokens from `past` anew."""
    from rockledge.runtime.speed import answering

    while True:
        with answering(engine, sequences, past, generated + 1):
            for _ in range(generated):
                begun = time.perf_counter()
                engine.step()
                yield time.perf_counter() - begun

"""The models that `rockledge serve` was asked for: what they are called, and what each of them takes."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rockledge.cli.durations import parse_duration
from rockledge.cli.serve_names import names_of
from rockledge.errors import BudgetError, UsageError
from rockledge.runtime.choices import PREFIX_BYTES
from rockledge.units import show_size

if TYPE_CHECKING:
    from rockledge.runtime.footprint import Footprint
    from rockledge.runtime.loading import Prepared
    from rockledge.serve.residency.room import Room
    from rockledge.serve.residency.running import Offer, Running
    from rockledge.serve.safety.keys import Keys

KEEP_ALIVE = "5m"
"""How long each of several models stays loaded, as in Ollama (https://docs.ollama.com/faq)."""

_SHARE = 7 / 8
"""Of the memory that is available at the start, what models may take together where no option says so."""


def add_models_arguments(parser: argparse.ArgumentParser) -> None:
    """Which models, and how long they stay."""
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="artifact made by rockledge quantize, or a GGUF file, Hugging Face directory or Hub id, which "
        "is converted first; several are loaded when requests ask for them",
    )
    parser.add_argument(
        "--alias",
        action="append",
        default=[],
        metavar="NAME",
        help="another name of the model, of several NAME=MODEL; may be given more than once",
    )
    parser.add_argument(
        "--keep-alive",
        type=_duration,
        metavar="TIME",
        help="how long a model stays loaded after its last request, such as 30s, 5m, 0, or -1 for ever "
        f"(default: {KEEP_ALIVE}, of a single model -1)",
    )


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


@dataclass(frozen=True)
class Served:
    """`offers`: the models, the first for requests that name none; `memory`: bytes that they may take
    together, None for no limit; `keep_alive_s`: as for `Models`; `sheets`: what the console shows of each."""

    offers: list[Offer]
    sheets: list[dict[str, Any]]
    memory: int | None
    keep_alive_s: float

    def load_first(self) -> Running:
        """The engine of the first model."""
        from rockledge.serve.residency.allowance import allowance

        first = self.offers[0]
        return first.load(allowance(first, self.offers, self.memory))


def offered(
    args: argparse.Namespace, options: Mapping[str, Any], room: Room, keys: Keys | None, kept: ExitStack
) -> Served:
    """The models of the command line. `options` are further ones of `Engine.load`. What is converted stays
    until `kept` is closed.

    Raises:
        RockledgeError: one of them is no model, cannot fit, or is called as another one is.
    """
    from rockledge.cli.any_model import artifact_of
    from rockledge.cli.serve_engine import ServedEngine
    from rockledge.model.source import source_name
    from rockledge.runtime.loading import chosen_chat, prepare
    from rockledge.serve.console.model_sheet import model_sheet
    from rockledge.serve.residency.running import Offer
    from rockledge.serve.served_model import ServedModel

    several = len(args.models) > 1
    if several:
        _require_for_several(args)
    paths = [kept.enter_context(artifact_of(model, quiet=args.quiet)) for model in args.models]
    names = names_of(args.models, [source_name(path) for path in paths], args.alias)
    memory = _available() if several and args.memory is None else args.memory
    offers, sheets = [], []
    for path, called in zip(paths, names, strict=True):
        prepared = prepare(
            path,
            args.threads,
            options["sequences"],
            ctx=args.ctx,
            budget=args.memory_budget,
            memory=memory,
        )
        artifact = prepared.artifact
        chat = chosen_chat(artifact, args.chat_template, args.chat_template_kwargs or {})
        footprint = _fitting(called.name, prepared, args, memory)
        model = ServedModel.of(
            artifact, called.name, footprint.context, chat, called.aliases, args.control_tokens
        )
        own = {**options, "ctx": footprint.context, **(_own_prefixes(args, called.name) if several else {})}
        sheets.append(model_sheet(model, artifact))
        engine = ServedEngine(path, model, own, room, keys, args.governor, args.target_temperature)
        offers.append(Offer(model, engine.load, footprint.bytes))
    keep_alive_s = args.keep_alive
    if keep_alive_s is None:
        keep_alive_s = parse_duration(KEEP_ALIVE if several else "-1")
    return Served(offers, sheets, memory, keep_alive_s)


def _require_for_several(args: argparse.Namespace) -> None:
    """Refuses options that are for one model."""
    if args.npu == "require":
        raise UsageError(
            f"--npu require is for one model, and these are {len(args.models)}: the NPU works for one at a "
            "time; leave it out"
        )
    for flag in ("chat_template", "chat_template_kwargs"):
        if getattr(args, flag):
            raise UsageError(
                f"--{flag.replace('_', '-')} is for one model, and these are {len(args.models)}; leave it out"
            )


def _available() -> int:
    """What several models may take together where no option says so, in bytes."""
    from rockledge.runtime.available_memory import available_bytes

    found = available_bytes()
    if found is None:
        raise UsageError("this system does not say how much memory is available; give --memory SIZE")
    return int(found * _SHARE)


def _fitting(name: str, prepared: Prepared, args: argparse.Namespace, memory: int | None) -> Footprint:
    """What a model takes, within `memory` bytes: what all models may take. Of several each has a context of
    its own.

    Raises:
        BudgetError: it can never be loaded.
    """
    from rockledge.runtime.footprint import STEP_TOKENS

    if len(args.models) == 1:
        return prepared.footprint(args.ctx, memory)
    demand = prepared.demand
    context = None if args.ctx is None else min(args.ctx, demand.longest)
    try:
        return prepared.footprint(context, memory)
    except BudgetError as error:
        if args.memory is not None:
            raise BudgetError(f"{name}: {error}") from None
        least = demand.total(STEP_TOKENS[-1], 1 if context is None else context)
        raise BudgetError(
            f"{name} takes at least {show_size(least, enough=True)}, its weights {show_size(demand.weights)} "
            f"of them, and models may take {show_size(memory or 0)}, seven eighths of what is available; "
            "take a smaller model, a shorter --ctx, or say with --memory how much they may take"
        ) from None


def _own_prefixes(args: argparse.Namespace, name: str) -> dict[str, Any]:
    """A directory of prefixes belongs to one engine at a time, so each model has one inside of it."""
    if args.prefix_dir is None:
        return {}
    folder = re.sub(r"[^\w.-]", "_", name).lstrip(".") or "model"
    most = PREFIX_BYTES if args.prefix_bytes is None else args.prefix_bytes
    return {
        "prefix_dir": args.prefix_dir / folder,
        "prefix_bytes": max(1, most // len(args.models)),
    }

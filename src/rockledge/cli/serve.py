"""`rockledge serve`: the HTTP server."""

from __future__ import annotations

import argparse
import logging
import signal
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rockledge.cli.command import Command
from rockledge.cli.engine_options import (
    add_engine_arguments,
    add_template_arguments,
    engine_options,
    number,
    port,
    size,
    whole,
)
from rockledge.cli.governor_options import add_governor_arguments
from rockledge.cli.serve_limits import add_limit_arguments, chosen_limits, most_calls
from rockledge.cli.serve_models import add_models_arguments, offered
from rockledge.cli.serve_safety import add_safety_arguments, chosen_safety, chosen_tls
from rockledge.cli.terminal import Terminal
from rockledge.errors import UsageError
from rockledge.runtime.choices import PARALLEL, PREFIX_BYTES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `serve`."""
    add_models_arguments(parser)
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; the default is this machine only"
    )
    parser.add_argument("--port", type=port, default=8000, help="port; 0 takes a free one")
    parser.add_argument(
        "--parallel",
        type=whole(1),
        default=PARALLEL,
        metavar="N",
        help=f"most sequences worked on at once (default: {PARALLEL})",
    )
    parser.add_argument(
        "--step-ms",
        type=number(0, above=True),
        metavar="MS",
        help="time of a step that reads prompts while others write (default: what suits the machine)",
    )
    parser.add_argument(
        "--prefix-dir",
        type=Path,
        metavar="DIR",
        help="keep beginnings of prompts here, for after a restart (default: in memory only)",
    )
    parser.add_argument(
        "--prefix-bytes",
        type=size,
        metavar="SIZE",
        help=f"most that --prefix-dir may take, such as 2G (default: {PREFIX_BYTES >> 30}G)",
    )
    add_limit_arguments(parser)
    add_governor_arguments(parser)
    add_safety_arguments(parser)
    parser.add_argument(
        "--control-tokens",
        action="store_true",
        help="control tokens in the texts of messages count as such, not as text",
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="refuse fields of requests that only other servers take, even where they change nothing",
    )
    parser.add_argument(
        "--no-console", action="store_true", help="serve no page at / (without it there is one for browsers)"
    )
    add_engine_arguments(parser)
    add_template_arguments(parser)


def run(args: argparse.Namespace, terminal: Terminal) -> dict[str, Any]:
    """Serves until interrupted; prints the address as soon as requests are accepted."""
    from rockledge.errors import ArtifactError
    from rockledge.runtime.governing import governed_board
    from rockledge.runtime.slow_settings import slow_settings
    from rockledge.serve.app import create_app
    from rockledge.serve.http.server import bind, run_server
    from rockledge.serve.residency.models import Models
    from rockledge.serve.residency.room import Room
    from rockledge.serve.safety.hosts import is_loopback

    if args.prefix_bytes is not None and args.prefix_dir is None:
        raise UsageError("--prefix-bytes bounds what --prefix-dir keeps; give that too")
    governed = governed_board(args.governor) is not None
    logging.getLogger("uvicorn").setLevel(logging.INFO)
    safety, tls = chosen_safety(args), chosen_tls(args)
    keys = safety.keys
    room = Room(most_calls(args))
    # The address comes first: a model may take minutes to be converted.
    with bind(args.host, args.port) as sock, ExitStack() as kept:
        served = offered(args, _options(args), room, keys, kept)
        limits = chosen_limits(args, max(offer.model.context for offer in served.offers))
        # It is loaded first, so that what is wrong with it or with the options is said here.
        models = Models(
            served.offers,
            [served.load_first()],
            limits=limits,
            room=room,
            memory=served.memory,
            keep_alive_s=served.keep_alive_s,
        )
        kept.callback(models.close)
        sheets = None if args.no_console else served.sheets
        app = create_app(models, limits=limits, safety=safety, strict=args.strict, sheets=sheets)
        first, npu = served.offers[0].model, models.running[0].npu

        def ready(url: str) -> None:
            names = " and ".join(model.name for model in models)
            page = "" if sheets is None else f", the console is at {url}/"
            verb = "answer" if len(models) > 1 else "answers"
            terminal.print(f"{names} {verb} at {url}/v1{page} (Ctrl-C stops it)")
            for slow in slow_settings():
                terminal.note(f"{slow.what}; {slow.costs} ({slow.source}). To mend it: {slow.mend}")
            if governed:
                terminal.note(f"A governor keeps the chip below {args.target_temperature:g} °C.")
            if keys is None and not is_loopback(args.host):
                terminal.note(
                    "Anyone who reaches this address can use it: there is no authentication. "
                    "`rockledge keys add NAME` makes a key, --keys FILE asks for one."
                )
            if keys is not None and tls is None and not is_loopback(args.host):
                terminal.note(
                    "Keys and prompts cross the network unencrypted; give --tls-cert and --tls-key, or put "
                    "a proxy with TLS in front of it."
                )
            terminal.result(
                {
                    "url": url,
                    "model": first.name,
                    "context": first.context,
                    "npu": npu,
                    "models": [model.name for model in models],
                    "governor": governed,
                }
            )

        if keys is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGHUP, lambda *_: keys.reload())
        try:
            run_server(
                app, sock, limits, on_ready=ready, on_end=lambda: models.drain(limits.grace_s), tls=tls
            )
        finally:
            failures = [one.front.failure for one in models.running if one.front.failure is not None]
            models.close()
            if failures:  # whatever ended the server, it had not worked before
                raise ArtifactError(failures[0].message)
    return {}


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """What the flags say to `Engine.load`."""
    chosen = {
        "parallel": args.parallel,
        "prefix_dir": args.prefix_dir,
        "prefix_bytes": args.prefix_bytes,
        "step_s": None if args.step_ms is None else args.step_ms / 1000,
    }
    given = {name: value for name, value in chosen.items() if value is not None}
    return {**engine_options(args, args.parallel), **given}


COMMAND = Command("serve", "answer over HTTP as the OpenAI API does", add_arguments, run, prints_itself=True)

"""`rockledge serve`: the OpenAI-compatible HTTP server."""

from __future__ import annotations

import argparse
import logging
import signal
import threading
from pathlib import Path
from typing import Any

from rockledge.board.governor import LEAST_TARGET, MOST_TARGET, TARGET_CELSIUS
from rockledge.cli.command import Command
from rockledge.cli.engine_options import (
    add_engine_arguments,
    add_model_argument,
    add_template_arguments,
    load_engine,
    number,
    port,
    size,
    tokens,
    whole,
)
from rockledge.cli.serve_safety import add_safety_arguments, chosen_safety, chosen_tls
from rockledge.cli.terminal import Terminal
from rockledge.errors import UsageError
from rockledge.runtime.choices import PARALLEL, PREFIX_BYTES
from rockledge.serve.limits import (
    BODY_BYTES,
    BYTES_PER_CONTEXT_TOKEN,
    GRACE_SECONDS,
    MOST_CONNECTIONS,
    MOST_WAITING,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `serve`."""
    add_model_argument(parser)
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
        "--max-waiting",
        type=whole(0),
        metavar="N",
        help=f"most requests that wait besides (default: {MOST_WAITING})",
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
    parser.add_argument(
        "--max-body",
        type=size,
        metavar="SIZE",
        help=f"longest request body, such as 8M (default: {BODY_BYTES >> 20}M, or "
        f"{BYTES_PER_CONTEXT_TOKEN} bytes a token of context)",
    )
    parser.add_argument(
        "--max-answer-tokens",
        type=tokens(1),
        metavar="N",
        help="longest answer (default: what the context holds)",
    )
    parser.add_argument(
        "--connections",
        type=whole(1),
        metavar="N",
        help=f"most connections at a time (default: {MOST_CONNECTIONS})",
    )
    parser.add_argument(
        "--grace",
        type=number(0),
        metavar="SECONDS",
        help=f"how long answers may go on after Ctrl-C or SIGTERM (default: {GRACE_SECONDS:g})",
    )
    parser.add_argument(
        "--governor",
        choices=("auto", "on", "off"),
        default="auto",
        help="hold the chip below a temperature by doing less (default: where the board is known)",
    )
    parser.add_argument(
        "--target-temperature",
        type=number(LEAST_TARGET, MOST_TARGET),
        default=TARGET_CELSIUS,
        metavar="CELSIUS",
        help=f"that the governor keeps (default: {TARGET_CELSIUS:g}, at most {MOST_TARGET:g})",
    )
    add_safety_arguments(parser)
    parser.add_argument(
        "--alias",
        action="append",
        default=[],
        metavar="NAME",
        help="another name of the model; may be given more than once",
    )
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
    add_engine_arguments(parser)
    add_template_arguments(parser)


def run(args: argparse.Namespace, terminal: Terminal) -> dict[str, Any]:
    """Serves until interrupted; prints the address as soon as requests are accepted."""
    from rockledge.artifact.watch import ArtifactWatch
    from rockledge.errors import ArtifactError
    from rockledge.runtime.exchange import Stop
    from rockledge.runtime.governing import make_governor
    from rockledge.runtime.service import Service
    from rockledge.runtime.slow_settings import slow_settings
    from rockledge.serve.app import create_app
    from rockledge.serve.front import Front
    from rockledge.serve.integrity import Integrity
    from rockledge.serve.models import Models, Running
    from rockledge.serve.safety.hosts import is_loopback
    from rockledge.serve.served_model import ServedModel
    from rockledge.serve.server import bind, run_server

    if args.prefix_bytes is not None and args.prefix_dir is None:
        raise UsageError("--prefix-bytes bounds what --prefix-dir keeps; give that too")
    logging.getLogger("uvicorn").setLevel(logging.INFO)
    options = {
        "parallel": args.parallel,
        "prefix_dir": args.prefix_dir,
        "prefix_bytes": args.prefix_bytes,
        "step_s": None if args.step_ms is None else args.step_ms / 1000,
    }
    options = {name: value for name, value in options.items() if value is not None}
    safety, tls = chosen_safety(args), chosen_tls(args)
    keys = safety.keys
    # The address comes first: a model may take minutes to be converted.
    with (
        bind(args.host, args.port) as sock,
        load_engine(args, sequences=args.parallel, check=False, options=options) as engine,
        ArtifactWatch(engine.artifact) as watch,
    ):
        engine.require_head()
        model = ServedModel.of(
            engine.artifact, engine.name, engine.context, engine.chat, args.alias, args.control_tokens
        )
        limits = _limits(args, engine.context)
        integrity = Integrity(engine.artifact.verify, watch)
        front = Front(most_calls=limits.parallel + limits.waiting, keys=keys)
        service = Service(engine, front.deliver)
        front.connect(service.send)
        models = Models([Running(model, front, integrity)])
        app = create_app(models, limits=limits, safety=safety, strict=args.strict)
        npu = engine.npu.body()
        governor = make_governor(
            args.governor,
            engine,
            args.parallel,
            args.target_temperature,
            send=service.send,
            stats=lambda: front.stats,
        )

        def ready(url: str) -> None:
            terminal.print(f"{model.name} answers at {url}/v1 (Ctrl-C stops it)")
            for slow in slow_settings():
                terminal.note(f"{slow.what}; {slow.costs} ({slow.source}). To mend it: {slow.mend}")
            if governor is not None:
                terminal.note(f"A governor keeps the chip below {args.target_temperature:g} °C.")
                governor.start()
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
                    "model": model.name,
                    "context": model.context,
                    "npu": npu,
                    "governor": governor is not None,
                }
            )

        if keys is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGHUP, lambda *_: keys.reload())
        try:
            run_server(app, sock, limits, on_ready=ready, on_end=lambda: front.drain(limits.grace_s), tls=tls)
        finally:
            failure = front.failure
            if governor is not None:
                governor.close()
            service.send(Stop())
            service.join()
            integrity.close()
            if failure is not None:  # whatever ended the server, it had not worked before
                raise ArtifactError(failure.message)
    return {}


def _limits(args: argparse.Namespace, context: int) -> Any:
    from rockledge.serve.limits import Limits, body_bytes

    chosen = {
        "waiting": args.max_waiting,
        "answer_tokens": args.max_answer_tokens,
        "connections": args.connections,
        "grace_s": args.grace,
        "body_bytes": body_bytes(context) if args.max_body is None else args.max_body,
    }
    given = {name: value for name, value in chosen.items() if value is not None}
    return Limits(parallel=args.parallel, **given)


COMMAND = Command("serve", "answer over HTTP as the OpenAI API does", add_arguments, run, prints_itself=True)

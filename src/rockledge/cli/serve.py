"""`rockledge serve`: the OpenAI-compatible HTTP server."""

from __future__ import annotations

import argparse
import ipaddress
import logging
from typing import Any

from rockledge.cli.command import Command
from rockledge.cli.engine_options import (
    add_engine_arguments,
    add_model_argument,
    add_template_arguments,
    load_engine,
    port,
    whole,
)
from rockledge.cli.terminal import Terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `serve`."""
    add_model_argument(parser)
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; the default is this machine only"
    )
    parser.add_argument("--port", type=port, default=8000, help="port; 0 takes a free one")
    parser.add_argument(
        "--queue", type=whole(1), default=64, metavar="N", help="most requests running and waiting"
    )
    add_engine_arguments(parser)
    add_template_arguments(parser)


def run(args: argparse.Namespace, terminal: Terminal) -> dict[str, Any]:
    """Serves until interrupted; prints the address as soon as requests are accepted."""
    from rockledge.runtime.sampling_defaults import CONVERSATION, default_sampling
    from rockledge.serve.app import create_app
    from rockledge.serve.server import bind, run_server

    logging.getLogger("uvicorn").setLevel(logging.INFO)
    # The address comes first: a model may take minutes to be converted.
    with bind(args.host, args.port) as sock, load_engine(args, check=False) as engine:
        engine.require_head()
        app = create_app(
            engine,
            queue_limit=args.queue,
            verify=engine.artifact.verify,
            sampling=default_sampling(engine.artifact.files, CONVERSATION),
        )

        def ready(url: str) -> None:
            terminal.print(f"{engine.name} answers at {url}/v1 (Ctrl-C stops it)")
            if not _loopback(args.host):
                terminal.note("Anyone who reaches this address can use it: there is no authentication.")
            terminal.result(
                {"url": url, "model": engine.name, "context": engine.context, "npu": engine.npu.body()}
            )

        run_server(app, sock, ready)
    return {}


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


COMMAND = Command("serve", "answer over HTTP as the OpenAI API does", add_arguments, run, prints_itself=True)

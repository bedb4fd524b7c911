"""Options of `serve` that say who may use it: keys, names, web pages, TLS."""

from __future__ import annotations

import argparse
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from rockledge.errors import UsageError

if TYPE_CHECKING:
    from rockledge.serve.safety.checks import Safety


def add_safety_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    parser.add_argument(
        "--keys",
        type=Path,
        metavar="FILE",
        help="answer only requests with an API key of this file (made by `rockledge keys add`)",
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name that requests may call the server by besides its address; * for all (repeatable)",
    )
    parser.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="web pages that may use the server, such as http://localhost:3000; * for all (repeatable)",
    )
    parser.add_argument(
        "--tls-cert", type=Path, metavar="FILE", help="answer over TLS with this PEM certificate"
    )
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="the PEM key of --tls-cert")


def chosen_safety(args: argparse.Namespace) -> Safety:
    """Who may use the server.

    Raises:
        UsageError: a name, an origin or the file of keys is wrong.
    """
    from rockledge.serve.safety.checks import Safety
    from rockledge.serve.safety.hosts import Hosts
    from rockledge.serve.safety.keys import Keys
    from rockledge.serve.safety.origins import Origins

    return Safety(
        hosts=Hosts.of(args.host, args.allow_host),
        origins=Origins.of(args.allow_origin),
        keys=None if args.keys is None else Keys(args.keys),
    )


def chosen_tls(args: argparse.Namespace) -> ssl.SSLContext | None:
    """The TLS of the server, None for none.

    Raises:
        UsageError: one of the files is missing or wrong.
    """
    from rockledge.serve.safety.tls import server_context

    if args.tls_cert is None and args.tls_key is None:
        return None
    if args.tls_cert is None or args.tls_key is None:
        raise UsageError("TLS needs --tls-cert and --tls-key; give both")
    return server_context(args.tls_cert, args.tls_key)

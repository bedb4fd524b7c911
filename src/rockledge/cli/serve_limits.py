"""Options of `serve` that say how much of everything it takes."""

from __future__ import annotations

import argparse

from rockledge.cli.engine_options import number, size, tokens, whole
from rockledge.serve.limits import (
    BODY_BYTES,
    BYTES_PER_CONTEXT_TOKEN,
    GRACE_SECONDS,
    MOST_CONNECTIONS,
    MOST_WAITING,
    Limits,
    body_bytes,
)


def add_limit_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    parser.add_argument(
        "--max-waiting",
        type=whole(0),
        metavar="N",
        help=f"most requests that wait besides (default: {MOST_WAITING})",
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


def most_calls(args: argparse.Namespace) -> int:
    """Calls that may be in the server at once, whichever their models."""
    return int(args.parallel) + (MOST_WAITING if args.max_waiting is None else int(args.max_waiting))


def chosen_limits(args: argparse.Namespace, context: int) -> Limits:
    """The limits of a server whose longest context is of so many tokens."""
    chosen = {
        "waiting": args.max_waiting,
        "answer_tokens": args.max_answer_tokens,
        "connections": args.connections,
        "grace_s": args.grace,
        "body_bytes": body_bytes(context) if args.max_body is None else args.max_body,
    }
    given = {name: value for name, value in chosen.items() if value is not None}
    return Limits(parallel=args.parallel, **given)

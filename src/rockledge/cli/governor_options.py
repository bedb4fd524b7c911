"""Options of the governor, for every command that runs an engine for long."""

from __future__ import annotations

import argparse

from rockledge.board.governor import LEAST_TARGET, MOST_TARGET, TARGET_CELSIUS
from rockledge.cli.engine_options import number


def add_governor_arguments(parser: argparse.ArgumentParser) -> None:
    """Whether there is one, and what it keeps."""
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
        help=f"that the governor keeps, {LEAST_TARGET:g} to {MOST_TARGET:g} (default: {TARGET_CELSIUS:g})",
    )

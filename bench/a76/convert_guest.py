"""Runs inside the emulator: the native loops of conversion, and marks which is which for the counting plugin.

Usage: python convert_guest.py ROWS COLS

Phase 1 turns the rows as the residual stream is turned, 2 rounds them to four bits, 3 to three; phase 5 is
everything else. Prints where the files of the process are mapped, as guest.py does.
"""

import sys

import numpy as np

from bench.a76.mapped import mark, print_mapped
from rockledge.conversion.native_rows import round_rows, turn
from rockledge.formats.hadamard import random_rotation


def main() -> None:
    rows, cols = map(int, sys.argv[1:])
    weights = np.random.default_rng(0).standard_normal((rows, cols), np.float32)
    rotation = random_rotation(cols, 0)
    mark(5)
    round_rows(weights[:1], 4), round_rows(weights[:1], 3)  # what only the first call pays
    mark(1)
    turn(weights, rotation)
    mark(2)
    round_rows(weights, 4)
    mark(3)
    round_rows(weights, 3)
    mark(5)
    print_mapped()


if __name__ == "__main__":
    main()

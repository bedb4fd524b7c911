"""Runs inside the emulator: the native loops of conversion, and marks which is which for the counting plugin.

Usage: python convert_guest.py ROWS COLS

Phase 1 turns the rows as the residual stream is turned, 2 rounds them to four bits, 3 to three; phase 5 is
everything else. Prints where the files of the process are mapped, as guest.py does.
"""

import ctypes
import json
import sys
from pathlib import Path

import numpy as np

from rockledge.conversion.native_rows import round_rows, turn
from rockledge.formats.hadamard import random_rotation

MARK = 0x726B  # as in guest.py


def main() -> None:
    rows, cols = map(int, sys.argv[1:])
    mark = ctypes.CDLL(None).getpriority
    weights = np.random.default_rng(0).standard_normal((rows, cols), np.float32)
    rotation = random_rotation(cols, 0)
    mark(MARK, 5)
    round_rows(weights[:1], 4), round_rows(weights[:1], 3)  # what only the first call pays
    mark(MARK, 1)
    turn(weights, rotation)
    mark(MARK, 2)
    round_rows(weights, 4)
    mark(MARK, 3)
    round_rows(weights, 3)
    mark(MARK, 5)
    found = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        words = line.split()
        if len(words) == 6 and "x" in words[1]:
            first, last = (int(at, 16) for at in words[0].split("-"))
            found.append((first, last, int(words[2], 16), words[5]))
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()

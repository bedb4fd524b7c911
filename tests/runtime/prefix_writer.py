"""A process that puts pages into a directory until it is killed: `python -m tests.runtime.prefix_writer DIR
LIMIT`. It says "open" once it has it, and a page's bytes follow from its number."""

import itertools
import sys
from hashlib import blake2b
from pathlib import Path

import numpy as np

from rockledge.runtime.prefix_page import Bytes
from rockledge.runtime.prefix_store import PrefixStore

IDENTITY = b"the writer's model"


def name(number: int) -> bytes:
    return blake2b(b"%d" % number, digest_size=16).digest()


def data(number: int) -> Bytes:
    return np.random.default_rng(number).integers(0, 256, 200_000, np.uint8)


if __name__ == "__main__":
    store = PrefixStore(Path(sys.argv[1]), int(sys.argv[2]), IDENTITY)
    print("open", flush=True)
    for number in itertools.count():
        store.put(name(number), 0, data(number))
        if number % 4 == 0:
            store.flush()

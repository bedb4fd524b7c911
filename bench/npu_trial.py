"""What trying every program of a plan takes when a model is loaded on a board.

    python -m bench.npu_trial [--json]

For each named shape on 8 GB, with its plan for 8k tokens of cache: the jobs by the time formula, the bytes
filled and handed over by the facts of the board (written at the bus's rate by one thread), and the CPU's
sums, one thread, by the instructions of native/npu/lane_sums.cpp (`bench.npu_work` counts them under an
emulated Cortex-A76: "Products compared"), four a cycle at most, two taken. All modelled; a board logs what it
really took.
"""

import argparse
import json
import sys
from dataclasses import asdict, dataclass

from bench.npu_as_built import Prefill
from rockledge.board.boards import NPU_CORES, Board, find_board
from rockledge.npu.programs.tile_program import INPUT, OUTPUT
from rockledge.runtime.offload.trial import compared_sums

MODELS = ("135m", "1b", "3b", "8b")
INSTRUCTIONS_PER_PRODUCT = 0.69
"""Of an int8 product of `rl_npu_wrong_sums`, counted by bench.npu_work."""
INSTRUCTIONS_PER_CYCLE = 2.0


@dataclass(frozen=True)
class Took:
    """Modelled seconds of trying a model's programs, by what takes them."""

    model: str
    programs: int
    jobs: float
    operands: float
    compared: float

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.jobs + self.operands + self.compared


def trial(board: Board, model: str) -> Took:
    """For one of the named shapes."""
    plan = Prefill(board, model).plan
    jobs, moved, products, programs = 0.0, 0, 0, 0
    for shape in plan.shapes:
        moved += NPU_CORES * shape.lane_bytes
        for size in shape.sizes:
            programs += 1
            jobs += size.matmul.tiling.cost.npu_seconds
            moved += size.bytes(INPUT) + NPU_CORES * size.bytes(OUTPUT)
            sums = sum(vectors.size * columns.size for vectors, columns in compared_sums(shape, size))
            products += NPU_CORES * sums * shape.inputs
    each = 1 / board.value("npu_bus_bandwidth") + 1 / board.value("cpu_cache_sync_bandwidth")
    rate = board.value("cpu_hz") * INSTRUCTIONS_PER_CYCLE / INSTRUCTIONS_PER_PRODUCT
    return Took(model, programs, jobs, moved * each, products / rate)


def main() -> int:
    """Prints a row for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    args = parser.parse_args()
    found = [trial(find_board("rk3588-8gb"), model) for model in MODELS]
    if args.json:
        print(json.dumps([{**asdict(one), "seconds": one.seconds} for one in found]))
        return 0
    print("model  programs   jobs  operands  compared  seconds, modelled")
    for one in found:
        print(
            f"{one.model:5}{one.programs:10}{one.jobs:8.2f}{one.operands:9.2f}{one.compared:10.2f}"
            f"{one.seconds:9.2f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())

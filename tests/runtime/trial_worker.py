"""Programs of a plan tried on an open NPU, in a process of its own, which takes orders as `npu_worker`."""

import json
import os
import sys

from tests.runtime.held import held
from tests.runtime.offload.linear_lists import linear

from rockledge.board.boards import find_board
from rockledge.errors import NpuError
from rockledge.npu.virtual_npu import ADDRESS_VARIABLE
from rockledge.runtime.npu_cores import prove
from rockledge.runtime.npu_device import NpuDevice
from rockledge.runtime.offload.load import load
from rockledge.runtime.offload.plan import plan_prefill
from rockledge.runtime.offload.trial import plan_from_trials, try_programs

BOARD = find_board("rk3588-8gb")


def tried(sizes, steps):
    """What a plan for linears of these (outputs, inputs, planes) becomes by what the device shows."""
    before = held()
    told = {"error": None}
    linears = [linear(op, *size) for op, size in enumerate(sizes)]
    with NpuDevice() as device:
        prove(device, 500)
        about = device.describe()
        plan = plan_prefill(
            linears, lanes=about.cores, spaces=about.spaces, steps=steps, board=BOARD, budget=1 << 30
        )
        trials = try_programs(device, plan, load(device, plan), BOARD, 2000)
        told |= {"wrong": trials.wrong, "tried": len(trials.jobs), "modelled_from": plan.from_rows}
        try:
            shown = plan_from_trials(plan, linears, trials, BOARD)
            told |= {"steps": shown.steps, "ops": [one.op for one in shown.linears], "from": shown.from_rows}
            told |= {"blocks": len(shown.block_slot), "slots": len(shown.slots), "pinned": shown.pinned}
        except NpuError as error:
            told["error"] = str(error)
    return {**told, "held": [before, held()]}


def main():
    for line in sys.stdin:
        order = json.loads(line)
        os.environ[ADDRESS_VARIABLE] = order.pop("address")
        assert order.pop("order") == "tried"
        print(json.dumps(tried(**order)), flush=True)


if __name__ == "__main__":
    main()

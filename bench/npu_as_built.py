"""What an engine plans for one of the named shapes: the time of prompts for the benches of the NPU.

The plan is that of a board with 8k tokens of cache and weights at 4.25 bits, under either kernel driver
(`runtime/offload/prompt_time.py`). Everything is modelled.
"""

from rockledge.board.boards import Board
from rockledge.runtime.offload.plan import PrefillPlan
from rockledge.runtime.offload.prompt_time import PromptTimes
from rockledge.synth import shape_config

BITS = 4


class Prefill(PromptTimes):
    """The time of prompts for a named shape, on a board that has an NPU."""

    plan: PrefillPlan

    def __init__(
        self, board: Board, model: str, planes: int = 1, *, cached: bool = False, spaces: int = 1
    ) -> None:
        """As for `PromptTimes`."""
        super().__init__(board, shape_config(model), BITS, planes, cached=cached, spaces=spaces)

"""The NPU mode of the user: auto, off or require; and what is logged when the NPU is not used."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict

from rockledge.board.memory import DecoderShape
from rockledge.errors import NpuError, UsageError
from rockledge.runtime.choices import NPU_MODES
from rockledge.runtime.offload.budget import free_bytes, npu_budget, this_board
from rockledge.runtime.offload.linears import Linear
from rockledge.runtime.offload.status import NpuStatus
from rockledge.runtime.offload.use import Attention, NpuUnusedError, NpuUse, open_npu

log = logging.getLogger(__name__)


def choose_npu(
    mode: str,
    linears: Sequence[Linear],
    shape: DecoderShape,
    *,
    context: int,
    weights: int,
    others: Callable[[int], int],
    memory: int | None,
    from_rows: int | None,
    attention_from: int | None = None,
) -> NpuUse | NpuStatus:
    """The NPU, ready to be used; or, with "auto", why it is not.

    `weights` and `memory` in bytes; `others` says how many bytes weights, arena and cache take together with
    steps of that many tokens. `from_rows` as for `open_npu`. Attention of prompts goes there for positions
    from `attention_from` on, None for none. Raises UsageError for an unknown mode, and with
    "require" NpuError.
    """
    if mode not in NPU_MODES:
        raise UsageError(f"the NPU mode is {mode!r}, expected one of {', '.join(NPU_MODES)}")
    if from_rows is not None and from_rows < 1:
        raise UsageError(f"the NPU is used from {from_rows} tokens on, expected at least 1")
    if attention_from is not None and attention_from < 0:
        raise UsageError(f"attention is on the NPU from position {attention_from} on, expected at least 0")
    if mode == "off":
        return NpuStatus("off", "it was not requested")
    try:
        board, free = this_board(), free_bytes()
    except NpuError as error:
        return unused(mode, NpuUnusedError(str(error), "unusable"))

    def budget(rows: int) -> int:
        return npu_budget(
            board,
            shape,
            context=context,
            rows=rows,
            weights=weights,
            others=others(rows),
            memory=memory,
            free=free,
        )

    try:
        return open_npu(
            linears,
            board=board,
            context=context,
            budget=budget,
            from_rows=from_rows,
            required=mode == "require",
            attention=None if attention_from is None else Attention(shape, attention_from),
        )
    except NpuUnusedError as error:
        return unused(mode, error)


STREAMED = (
    "the weights are streamed from the disk (--memory-budget), and the NPU unpacks them from memory; "
    "give them room, or leave the NPU out"
)


def beside_streaming(mode: str) -> NpuStatus:
    """The status of the NPU, which is not used where weights are streamed: of the two walls of a step, the
    disk is the one. Raises as `choose_npu` does."""
    if mode not in NPU_MODES:
        raise UsageError(f"the NPU mode is {mode!r}, expected one of {', '.join(NPU_MODES)}")
    if mode == "require":
        raise NpuError(f"the NPU is required and cannot be used: {STREAMED}")
    if mode == "auto":
        log.info("the NPU is not used: %s", STREAMED)
    return NpuStatus("off", "it was not requested" if mode == "off" else STREAMED)


def unused(mode: str, error: NpuUnusedError) -> NpuStatus:
    """The status when the NPU cannot be used, with a line in the log; NpuError where it is required."""
    if mode == "require":
        raise NpuError(f"the NPU is required and cannot be used: {error}") from None
    if error.state == "none":
        log.info("there is no NPU here; prefill runs on the CPU")
    elif error.state == "slower":
        log.info("the NPU is not used: %s", error)
    else:
        log.warning("the NPU is not used, prefill runs on the CPU: %s", error)
    return NpuStatus(error.state, str(error), **asdict(error.counts))

"""What an artifact will be like on a board: modelled speed, memory, longest context."""

from collections.abc import Mapping
from typing import Any

from rockledge.board.boards import Board
from rockledge.board.memory import longest_context, plan_memory
from rockledge.errors import BudgetError
from rockledge.model.config import ModelConfig
from rockledge.units import show_size

# Tokens of context whose memory is named, where the model has as many.
_CONTEXT = 8192


def board_numbers(config: ModelConfig, board: Board, tensor_bytes: int, tok_s: float) -> dict[str, Any]:
    """For report.json: `board_memory_bytes` (weights, cache and arenas with `board_context_tokens`) is None
    where that does not fit, `board_longest_context_tokens` is 0 where nothing does."""
    context = min(config.context, _CONTEXT)
    try:
        plan = plan_memory(board, config, context, weights_bytes=tensor_bytes)
        memory = plan.weights_bytes + plan.kv_bytes + plan.arena_bytes
    except BudgetError:
        memory = None
    return {
        "board": board.name,
        "decode_tok_s_predicted": tok_s,
        "ms_per_token_predicted": 1e3 / tok_s,
        "board_memory_bytes": memory,
        "board_context_tokens": context,
        "board_longest_context_tokens": min(longest_context(board, config, tensor_bytes), config.context),
    }


def board_line(numbers: Mapping[str, Any]) -> str:
    """The same for people."""
    speed = (
        f"{numbers['decode_tok_s_predicted']:.1f} tok/s ({numbers['ms_per_token_predicted']:.1f} ms a token)"
    )
    longest, memory = numbers["board_longest_context_tokens"], numbers["board_memory_bytes"]
    if longest == 0:
        room = "but it does not fit there"
    elif memory is None:
        room = f"with a context of {longest} tokens at most"
    else:
        context = numbers["board_context_tokens"]
        room = f"{show_size(memory)} with a context of {context} tokens, {longest} tokens at most"
    return f"On {numbers['board']} (modelled): {speed}, {room}"

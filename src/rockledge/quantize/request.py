"""What one run of `quantize` is asked for, checked and completed before any work starts."""

from dataclasses import dataclass
from pathlib import Path

from rockledge.board.boards import Board, find_board
from rockledge.board.memory import weight_budget
from rockledge.board.time import DEFAULT_BOARD
from rockledge.errors import BudgetError, UsageError
from rockledge.model.config import ModelConfig
from rockledge.quantize.budget import parameters
from rockledge.quantize.recipe import BUILT_IN, Recipe, check_recipe, read_recipe
from rockledge.quantize.steps import Steps

DEFAULT_BITS = 4.25
# Calibration tokens for every input of the widest linear: fewer leave its second moments poorly known. The
# limits keep a small model's mix diverse and a large model's time bearable.
_TOKENS_PER_INPUT = 4
_LEAST_TOKENS, _MOST_TOKENS = 6144, 32768
# Context, in tokens, whose KV cache must fit beside the weights when a board is named.
_FIT_CONTEXT = 8192
# Sequences of this many tokens; a third of them also give gradients.
_LENGTH = 512
_GRADIENT_SHARE = 3


@dataclass(frozen=True)
class Request:
    """`tensor_bytes` is the size to stay within; `board` predicts speed, and limits the size where `fitted`.
    `calibration` is a file, or None for the built-in mix; `recipe` is one that fixes the widths, or None.
    """

    bits_per_weight: float | None
    board: Board
    fitted: bool
    tensor_bytes: int
    calibration: Path | None
    tokens: int
    length: int
    seed: int
    steps: Steps
    recipe: Recipe | None

    @property
    def gradient_sequences(self) -> int:
        """Calibration sequences that also give gradients."""
        return max(1, self.tokens // (_GRADIENT_SHARE * self.length))


def default_tokens(config: ModelConfig) -> int:
    """Calibration tokens used where none are asked for."""
    return min(max(_LEAST_TOKENS, _TOKENS_PER_INPUT * config.ffn), _MOST_TOKENS)


def request(
    config: ModelConfig,
    *,
    bits: float | None = None,
    fit: str | None = None,
    recipe: str | Path | None = None,
    calibration: str | Path | None = None,
    tokens: int | None = None,
    seed: int = 0,
) -> Request:
    """Completes the arguments of `quantize` for a model.

    Without `bits` and `fit` the budget is 4.25 bits a weight; with `fit` alone, what the board's memory
    leaves for weights; with both, both hold. A recipe brings its own seed, and text and budget where none are
    given; with widths, its budget is what they come to. UsageError for values that make no sense, BudgetError
    where a board has no room at all.
    """
    made = None if recipe is None else read_recipe(Path(recipe))
    fixed = None
    if made is not None:
        if made.widths:
            if bits is not None or fit is not None:
                raise UsageError("This recipe holds widths; leave out --bits and --fit, or its widths.")
            check_recipe(made, config)
            fixed, tokens = made, made.tokens
        if bits is None and fit is None:
            bits, fit = made.bits_per_weight, made.board
        seed, tokens = made.seed, tokens or made.tokens
        if calibration is None and made.calibration != BUILT_IN:
            calibration = made.calibration
    if fixed is None and bits is None and fit is None:
        bits = DEFAULT_BITS
    if bits is not None and not 0 < bits <= 32:
        raise UsageError(f"A budget of {bits} bits a weight makes no sense; ask for 3.25 to 8.5.")
    if tokens is not None and tokens < 1:
        raise UsageError(f"Calibration on {tokens} tokens makes no sense; leave it out for the default.")
    board = DEFAULT_BOARD if fit is None else find_board(fit)
    limits = []
    if bits is not None:
        limits.append(int(bits * parameters(config) / 8))
    if fit is not None:
        limits.append(weight_budget(board, config, min(config.context, _FIT_CONTEXT)))
    if not limits:
        # A recipe written by hand may name no budget: it is what its widths come to.
        limits.append(4 * parameters(config))
    if min(limits) <= 0:
        raise BudgetError(f"{board.name} has no room for the weights of this model.")
    return Request(
        bits_per_weight=bits,
        board=board,
        fitted=fit is not None,
        tensor_bytes=min(limits),
        calibration=None if calibration is None else Path(calibration),
        tokens=tokens or default_tokens(config),
        length=min(_LENGTH, config.context),
        seed=seed,
        steps=Steps() if made is None else made.steps,
        recipe=fixed,
    )

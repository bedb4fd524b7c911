"""What one run of `quantize` is asked for, checked and completed before any work starts."""

from dataclasses import dataclass
from math import inf
from pathlib import Path

from rockledge.board.boards import Board, find_board
from rockledge.board.memory import weight_budget
from rockledge.board.time import DEFAULT_BOARD
from rockledge.errors import BudgetError, UsageError
from rockledge.model.block import decoder
from rockledge.model.config import ModelConfig
from rockledge.quantization.choosing.recipe import BUILT_IN, Recipe, check_recipe, read_recipe
from rockledge.quantization.steps import FAST, Steps

DEFAULT_BITS = 4.25
# Calibration tokens for every input of the widest linear: fewer leave its second moments poorly known. The
# limits keep a small model's mix diverse and a large model's time bearable.
_TOKENS_PER_INPUT = 8
_LEAST_TOKENS, _MOST_TOKENS = 6144, 32768
# A diagonal is known from far fewer.
_MOST_DIAGONAL_TOKENS = 8192
# Context, in tokens, whose KV cache must fit beside the weights when a board is named.
_FIT_CONTEXT = 8192
# Sequences of this many tokens; a third of them also give gradients.
_LENGTH = 512
_GRADIENT_SHARE = 3
# A token and the one that is predicted from it.
_LEAST_CONTEXT = 2


@dataclass(frozen=True)
class Request:
    """`tensor_bytes` is the size to stay within; `board` predicts speed, and limits the size where `fitted`.
    `milliseconds` is what a decoded token may take there, None for no limit.
    `calibration` is a file, or None for the built-in mix; `recipe` is one that fixes the widths, or None.
    """

    bits_per_weight: float | None
    board: Board
    fitted: bool
    tensor_bytes: int
    milliseconds: float | None
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


def default_tokens(config: ModelConfig, steps: Steps) -> int:
    """Calibration tokens used where none are asked for."""
    most = _MOST_TOKENS if steps.moments == "full" else _MOST_DIAGONAL_TOKENS
    return min(max(_LEAST_TOKENS, _TOKENS_PER_INPUT * config.ffn), most)


def request(
    config: ModelConfig,
    *,
    bits: float | None = None,
    fit: str | None = None,
    milliseconds: float | None = None,
    fast: bool = False,
    recipe: str | Path | None = None,
    calibration: str | Path | None = None,
    tokens: int | None = None,
    seed: int = 0,
) -> Request:
    """Completes the arguments of `quantize` for a model.

    Without any limit the budget is 4.25 bits a weight; `fit` means what the board's memory leaves for
    weights, `milliseconds` the time of a decoded token on that board or the usual one; all that are given
    hold. `fast` means the built-in steps that take least time. A recipe brings its own seed, and text and
    budget where none are given; with widths, its budget is what they come to. UsageError for values that make
    no sense, BudgetError where a board has no room at all.
    """
    made = None if recipe is None else read_recipe(Path(recipe))
    fixed = None
    unlimited = bits is None and fit is None and milliseconds is None
    if made is not None:
        if fast:
            raise UsageError("a recipe and --fast both choose the steps; leave one of them out")
        if made.widths:
            if not unlimited:
                raise UsageError(
                    "this recipe holds widths; leave out --bits, --fit and --milliseconds, or its widths"
                )
            check_recipe(made, config)
            fixed, tokens = made, made.tokens
        if unlimited:
            bits, fit, milliseconds = made.bits_per_weight, made.board, made.milliseconds
        seed, tokens = made.seed, tokens or made.tokens
        if calibration is None and made.calibration != BUILT_IN:
            calibration = made.calibration
    if fixed is None and bits is None and fit is None and milliseconds is None:
        bits = DEFAULT_BITS
    if bits is not None and not 0 < bits <= 32:
        raise UsageError(f"the budget is {bits} bits a weight, expected 3.25 to 8.5")
    if milliseconds is not None and not 0 < milliseconds < inf:
        raise UsageError(f"the time of a token is {milliseconds} milliseconds, expected a positive number")
    if tokens is not None and tokens < 1:
        raise UsageError(f"calibration on {tokens} tokens is not possible; leave it out for the default")
    if config.context < _LEAST_CONTEXT:
        raise UsageError(
            f"a model with a context of {config.context} tokens cannot be calibrated, "
            f"expected at least {_LEAST_CONTEXT}"
        )
    board = DEFAULT_BOARD if fit is None else find_board(fit)
    limits = []
    if bits is not None:
        limits.append(int(bits * decoder(config).parameters / 8))
    if fit is not None:
        limits.append(weight_budget(board, config, min(config.context, _FIT_CONTEXT)))
    if not limits:
        # Time alone limits the size, and a recipe's widths may come without a budget.
        limits.append(4 * decoder(config).parameters)
    if min(limits) <= 0:
        raise BudgetError(
            f"{board.name} has no room for the weights of this model; take a smaller model or another board"
        )
    steps = FAST if fast else Steps() if made is None else made.steps
    return Request(
        bits_per_weight=bits,
        board=board,
        fitted=fit is not None,
        tensor_bytes=min(limits),
        milliseconds=milliseconds,
        calibration=None if calibration is None else Path(calibration),
        tokens=tokens or default_tokens(config, steps),
        length=min(_LENGTH, config.context),
        seed=seed,
        steps=steps,
        recipe=fixed,
    )

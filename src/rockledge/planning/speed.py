"""How fast a model at a width is on a board, as ranges: decode, prefill, time to the first token.

Nothing is computed here: decode is `board/time.py`, prompts are `runtime/offload/prompt_time.py`. A range
takes all facts at one end together, so that it is wider than what single boards differ by.
"""

from collections.abc import Sequence
from functools import cached_property

from rockledge.board.boards import Board
from rockledge.board.facts import End
from rockledge.board.memory import kv_bytes
from rockledge.board.step_time import prompt_costs, with_fixed_costs
from rockledge.board.tiles import stored_bytes
from rockledge.board.time import DecodePrediction, predict_decode
from rockledge.errors import BudgetError
from rockledge.model.block import decoder
from rockledge.model.config import ModelConfig
from rockledge.npu.programs.steps import STEP_ROWS, step_rows
from rockledge.planning.ranges import ENDS, Range, over
from rockledge.runtime.offload.prompt_time import PromptTime, PromptTimes


class Speed:
    """Of a model at a width, on a board, with `tokens` of cache in all. `weights`: bytes of the artifact that
    the NPU's buffers lie beside, where they are more than those of the width. Where that leaves the NPU too
    little, prompts are the CPU's. `lengths`: of the prompts whose ranges are asked for, so that only the
    steps that they take are planned at the ends; empty for any."""

    def __init__(
        self,
        board: Board,
        config: ModelConfig,
        bits: int,
        tokens: int,
        weights: int | None = None,
        lengths: Sequence[int] = (),
    ) -> None:
        self.board, self.config, self.bits, self.tokens = board, config, bits, tokens
        self._weights, self._lengths = weights, lengths
        self._at: dict[End, Board] = {end: board.at(end) for end in ENDS}
        self._times: dict[End, PromptTimes] = {}

    @cached_property
    def bands(self) -> tuple[tuple[int, int, int], ...]:
        """Every matrix that a token multiplies with."""
        tree = decoder(self.config)
        return tuple(
            (self.bits, linear.rows, linear.cols)
            for name, linear in tree.linears()
            if not (name == tree.embed.role and tree.gathered)
        )

    def products(self, tokens: int, drawn: int) -> int:
        """Int8 products of `tokens` through all layers, and of the head for the `drawn` ones that are
        followed by another. Attention is left out."""
        config = self.config
        head = 0 if config.headless else config.vocab * config.hidden
        return tokens * (sum(rows * cols for _, rows, cols in self.bands) - head) + drawn * head

    @property
    def read_bytes(self) -> int:
        """Bytes of the matrices that a step reads."""
        return sum(stored_bytes(*band) for band in self.bands)

    def decoding(self, after: int, streams: int = 1, end: End = "likely") -> DecodePrediction:
        """A step that writes a token of each of `streams`, each after a context of `after` tokens."""
        board, config = self._at[end], self.config
        found = predict_decode(
            self.bands, kv_bytes_read=kv_bytes(config, after), board=board, sequences=streams
        )
        turned = decoder(config).residual_turns
        return with_fixed_costs(
            found,
            board,
            config,
            self.bands,
            sequences=streams,
            after=after,
            hadamards=("ffn.down",) if turned else ("attn.in", "ffn.in", "ffn.down"),
            norms=config.branch_norms,
        )

    def decode(self, after: int, streams: int = 1) -> Range:
        """Tokens/s of each of `streams`."""
        return over(lambda end: self.decoding(after, streams, end).decode_tok_s)

    def prompts(self, end: End = "likely") -> PromptTimes:
        """What the engine plans for prompts."""
        if end not in self._times:
            steps = STEP_ROWS if end == "likely" else self._end_steps
            try:
                self._times[end] = self._planned(self._at[end], steps)
            except BudgetError:
                self._times[end] = self._planned(self._at[end].without_npu(), steps)
        return self._times[end]

    @cached_property
    def _end_steps(self) -> tuple[int, ...]:
        """Sizes of steps at the ends of a range: those that the engine takes for the lengths that are told.
        Programs for all sizes take a while to search."""
        plan = self.prompts().plan
        if plan is None or not self._lengths:
            return STEP_ROWS
        chunks = (rows for tokens in self._lengths for rows in plan.chunks(tokens))
        return tuple(sorted({step_rows(rows) for rows in chunks}))

    def _planned(self, board: Board, steps: tuple[int, ...]) -> PromptTimes:
        return PromptTimes(
            board, self.config, self.bits, context=self.tokens, weights=self._weights, steps=steps
        )

    def prompt(self, tokens: int, *, after: int = 0, end: End = "likely") -> PromptTime:
        """A prompt of `tokens` that follows `after` others which are in the cache."""
        return self.prompts(end).prompt(tokens, after=after)

    def prompt_seconds(self, tokens: int, *, after: int = 0, end: End = "likely") -> float:
        """Of such a prompt, with the fixed costs of its steps on a board of which they were measured."""
        time = self.prompt(tokens, after=after, end=end)
        on_cpu = self.prompts(end).plan is None
        return time.seconds + prompt_costs(
            self._at[end], self.config, tokens, steps=len(time.steps), on_cpu=on_cpu
        )

    def prefill(self, tokens: int) -> Range:
        """Tokens/s of a prompt after an empty context."""
        return over(lambda end: tokens / self.prompt_seconds(tokens, end=end))

    def first_token(self, tokens: int, cached: int = 0) -> Range:
        """Seconds to the first token of a prompt of `tokens`, of which `cached` are in the cache."""
        return over(lambda end: self.prompt_seconds(tokens - cached, after=cached, end=end))

    def npu_utilisation(self, tokens: int) -> float:
        """Products of a prompt that the NPU makes, over what its cores could make in the same time: 0 to 1.
        0 where prompts are the CPU's."""
        plan = self.prompts().plan
        if plan is None:
            return 0.0
        time = self.prompt(tokens)
        peak = plan.lanes * self.board.value("npu_hz") * self.board.value("npu_int8_macs_per_cycle")
        return time.npu_macs / (peak * time.seconds)

"""How tokens are drawn and scored in the native step: what one sequence keeps for it from step to step.

A step reads these records in place, so a row costs Python one address, and no logits leave the core.
"""

import ctypes
from collections.abc import Collection

import numpy as np
import numpy.typing as npt

from rockledge.errors import NativeError, UsageError
from rockledge.runtime.native_draw import DrawRecord, SamplingRecord
from rockledge.runtime.sampling import BANNED, Sampling, TokenLogprob

Int32 = npt.NDArray[np.int32]
UInt32 = npt.NDArray[np.uint32]


class _Scored:
    """The record of one row, and its scores after a step."""

    def __init__(self, record: DrawRecord, top: int) -> None:
        self.record = record
        self.address = ctypes.addressof(record)
        self._top_tokens = np.zeros(top, np.int32)
        self._top_logprobs = np.zeros(top, np.float64)
        record.top_count = top
        record.top_tokens = self._top_tokens.ctypes.data
        record.top_logprobs = self._top_logprobs.ctypes.data
        record.repetition = 1.0
        record.sampling.top_p = 1.0
        record.token = -1

    @property
    def logprob(self) -> float:
        """Natural logarithm of the token's probability under the model, before any setting."""
        return float(self.record.logprob)

    @property
    def top(self) -> tuple[TokenLogprob, ...]:
        """The most probable tokens under the model, best first, equal ones by rising id."""
        found = self.record.top_found
        pairs = zip(self._top_tokens[:found].tolist(), self._top_logprobs[:found].tolist(), strict=True)
        return tuple(TokenLogprob(token, logprob) for token, logprob in pairs)


class Given(_Scored):
    """A token that is known, to be scored: its log probability and the `top` most probable tokens there."""

    def __init__(self, token: int, top: int) -> None:
        """Raises UsageError where `top` is below 0."""
        if top < 0:
            raise UsageError(f"{top} alternatives of a token, expected 0 or more")
        super().__init__(DrawRecord(given=token, scored=1), top)
        self.token = token


class Drawing(_Scored):
    """How the tokens of one sequence are drawn and scored: settings and history, as the native step reads it.

    `drawn` tokens have been taken; the next one is draw number `drawn + 1`, so that the seed and that number
    fix the choice. `logprob` and `top` are those of the last step, where `logprobs` was not None.
    """

    def __init__(
        self,
        sampling: Sampling,
        prompt: Int32,
        *,
        most: int,
        ends: Collection[int],
        logprobs: int | None = None,
    ) -> None:
        """`prompt` int32 [tokens] counts for the repetition penalty. `most`: tokens that are taken at most.
        `ends`: what ends an answer besides `sampling.stop_ids`, held back until `min_tokens`. `logprobs`:
        alternatives beside each token (0: only its own), None for no scores. Raises UsageError where that is
        below 0."""
        if logprobs is not None and logprobs < 0:
            raise UsageError(f"logprobs is {logprobs} alternatives; give 0 or more, or None")
        settings = SamplingRecord(
            sampling.temperature, sampling.top_p, sampling.min_p, sampling.top_k, sampling.seed_or_fresh()
        )
        record = DrawRecord(given=-1, scored=int(logprobs is not None), number=1)
        super().__init__(record, logprobs or 0)
        record.sampling = settings
        self.drawn = 0
        self._hold_back(sampling, ends)
        self._remember(sampling, prompt, most)
        self._mask: UInt32 | None = None

    def _hold_back(self, sampling: Sampling, ends: Collection[int]) -> None:
        """Biases and bans; ends are the last of the banned, and leave the list after `min_tokens`."""
        bias = [(token, add) for token, add in sampling.logit_bias if add > BANNED]
        never = [token for token, add in sampling.logit_bias if add <= BANNED]
        held = [*ends, *sampling.stop_ids] if sampling.min_tokens > 0 else []
        self._bias_tokens = np.array([token for token, _ in bias], np.int32)
        self._bias = np.array([add for _, add in bias], np.float32)
        self._banned = np.array(never + held, np.int32)
        self._min_tokens, self._never = sampling.min_tokens, len(never)
        self.record.bias_count, self.record.banned_count = len(bias), len(never) + len(held)
        self.record.bias_tokens, self.record.bias = self._bias_tokens.ctypes.data, self._bias.ctypes.data
        self.record.banned = self._banned.ctypes.data

    def _remember(self, sampling: Sampling, prompt: Int32, most: int) -> None:
        """Distinct tokens of prompt and answer, if a penalty asks for them."""
        record = self.record
        record.repetition = sampling.repetition_penalty
        record.presence, record.frequency = sampling.presence_penalty, sampling.frequency_penalty
        self._slots: dict[int, int] | None = None
        if not sampling.penalised:
            return
        known = np.unique(prompt) if sampling.repetition_penalty != 1.0 else np.zeros(0, np.int32)
        self._seen = np.zeros(len(known) + most, np.int32)
        self._times = np.zeros(len(known) + most, np.int32)
        self._seen[: len(known)] = known
        self._slots = {token: slot for slot, token in enumerate(known.tolist())}
        record.seen, record.seen_times = self._seen.ctypes.data, self._times.ctypes.data
        record.seen_count = len(known)

    @property
    def token(self) -> int:
        """What the last step drew; -1 before it, or where no token could be drawn."""
        return int(self.record.token)

    def take(self) -> int:
        """The token of the step that has run, from now on part of the history. Raises NativeError where none
        of the logits that were left was a number."""
        record = self.record
        token = int(record.token)
        if token < 0:
            raise NativeError(
                "none of the logits of tokens that may be drawn is a number; the model's output is broken, "
                "or the request bans every token that may come"
            )
        self.add(token)
        return token

    def add(self, token: int) -> None:
        """Makes a token part of the history as if it had been drawn: one that is the only one to follow."""
        record = self.record
        self.drawn += 1
        record.number = self.drawn + 1
        if self.drawn == self._min_tokens:
            record.banned_count = self._never
        if self._slots is not None:
            slot = self._slots.setdefault(token, record.seen_count)
            if slot == record.seen_count:
                self._seen[slot] = token
                record.seen_count = slot + 1
            self._times[slot] += 1

    def allow(self, mask: UInt32 | None) -> None:
        """From the next step on only tokens whose bit is set may be drawn: bit i % 32 of mask[i // 32],
        uint32 with bits for the whole vocabulary, read in place. None: all may. Raises NativeError for
        another array."""
        if mask is not None and (mask.dtype != np.uint32 or mask.ndim != 1 or not mask.flags.c_contiguous):
            raise NativeError(f"a mask of {mask.dtype} {mask.shape}, expected contiguous uint32 words")
        self._mask = mask  # kept, for the core reads it
        self.record.allowed = None if mask is None else mask.ctypes.data
        self.record.allowed_words = 0 if mask is None else mask.size

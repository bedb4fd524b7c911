"""Grammars of answers at work: which tokens may follow, which must, and when nothing may.

The masks of a step are made in a thread of their own while the step computes logits; llguidance works without
the GIL. Everything that a matcher says depends on the tokens of its answer alone, never on the schedule.
"""

from collections import deque
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from rockledge.errors import UsageError
from rockledge.model.tokenizer import Tokenizer
from rockledge.runtime.constraints.constraint import Constraint, compile_constraint, too_complex

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

UInt32 = npt.NDArray[np.uint32]

_ALL = np.uint32(0xFFFFFFFF)


class GrammarMatcher:
    """Where one answer stands in its grammar. `mask`: a bit for every token that may come next, uint32
    [(vocab + 31) // 32], bit i % 32 of word i // 32; it is that of the tokens so far unless `stale`."""

    def __init__(self, matcher: "LLMatcher", vocab: int, unwanted: Collection[int]) -> None:
        """`unwanted`: ends of text that may not come as long as anything else may."""
        self._matcher = matcher
        self._wanted: UInt32 | None = None
        if unwanted:
            self._wanted = np.full((vocab + 31) // 32, _ALL)
            for token in unwanted:
                self._wanted[token // 32] &= ~np.uint32(1 << token % 32)
        self.mask: UInt32 = np.full((vocab + 31) // 32, _ALL)
        self.stale = True

    @property
    def complete(self) -> bool:
        """Whether the answer is whole and nothing may follow."""
        return bool(self._matcher.is_stopped()) and not self._matcher.is_error()

    def require_sound(self) -> None:
        """UsageError once a limit was reached."""
        if self._matcher.is_error():
            raise UsageError(too_complex(self._matcher.get_error()))

    def accept(self, token: int) -> None:
        """A token was drawn. Raises UsageError."""
        self.stale = True
        self._matcher.consume_token(token)
        self.require_sound()

    def take_forced(self, most: int) -> list[int]:
        """Up to `most` tokens that are the only ones to follow, from now on part of the answer; as the
        model's tokenizer cuts the text, as far as what comes after cannot change that. Raises UsageError."""
        if self.complete or most <= 0:
            return []
        found = self._matcher.compute_ff_tokens()[:most]
        found = found[: self._matcher.validate_tokens(found)] if found else []
        if found:
            self.stale = True
            self._matcher.consume_tokens(found)
        self.require_sound()
        return found

    def fill(self) -> None:
        """Makes the mask; in any thread, while nothing else is asked. After a failure it allows everything,
        and `require_sound` says so."""
        self._matcher.unsafe_compute_mask_ptr(self.mask.ctypes.data, self.mask.nbytes)
        if self._matcher.is_error():
            self.mask[:] = _ALL
        elif self._wanted is not None and (wanted := self.mask & self._wanted).any():
            self.mask[:] = wanted
        self.stale = False


class Masks:
    """The masks of a step, made in another thread until somebody needs them, who makes what is left: on a
    busy machine the other thread may not have begun by then."""

    def __init__(self, thread: ThreadPoolExecutor, matchers: Iterable[GrammarMatcher]) -> None:
        self._left = deque(matchers)
        self._beside = thread.submit(self._fill)

    def _fill(self) -> None:
        while self._left:
            try:
                matcher = self._left.popleft()
            except IndexError:  # the other thread took it
                return
            matcher.fill()

    def finish(self) -> None:
        """All masks are made; any thread may use the matchers."""
        self._fill()
        self.abandon()

    def abandon(self) -> None:
        """No further mask is begun; afterwards any thread may use the matchers."""
        self._left.clear()
        if not self._beside.cancel():
            self._beside.result()


class Grammars:
    """Matchers over one model's tokens. Its threads and llguidance's view of the vocabulary, which takes a
    second and some megabytes, are made for the first constraint."""

    def __init__(self, tokenizer: Tokenizer, ends: Collection[int], vocab: int) -> None:
        """`ends`: tokens that may come once an answer is whole. `vocab`: rows of the logits."""
        self._tokenizer = tokenizer
        self._ends = sorted(ends)
        self._vocab = vocab
        self._compiling = ThreadPoolExecutor(1, "rockledge-grammar")
        self._masking = ThreadPoolExecutor(1, "rockledge-masks")

    def compile(self, constraint: Constraint, *, ignore_eos: bool) -> "Future[GrammarMatcher]":
        """The matcher of an answer, made in another thread; the future may hold a UsageError."""

        def compiled() -> GrammarMatcher:
            matcher = compile_constraint(constraint, lambda: self._tokens)
            return GrammarMatcher(matcher, self._vocab, self._ends if ignore_eos else ())

        return self._compiling.submit(compiled)

    def fill(self, matchers: Sequence[GrammarMatcher]) -> "Masks":
        """Begins with the masks of a step in another thread."""
        return Masks(self._masking, matchers)

    def close(self) -> None:
        """Ends the threads."""
        self._compiling.shutdown(cancel_futures=True)
        self._masking.shutdown()

    @cached_property
    def _tokens(self) -> "LLTokenizer":
        from llguidance import LLTokenizer

        view = _Vocabulary(self._tokenizer, self._ends, self._vocab)
        return LLTokenizer(view, n_vocab=self._vocab, eos_token=self._ends)  # type: ignore[arg-type]


class _Vocabulary:
    """A tokenizer as llguidance wants to have it: the bytes of every token, and texts to tokens."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, ends: Sequence[int], vocab: int) -> None:
        self.eos_token_id = ends[0]
        self.tokens = [tokenizer.token_bytes(token) for token in range(vocab)]
        # Ends that are not declared as signals are read as signals here all the same.
        self.special_token_ids = sorted({*tokenizer.special_ids, *ends} & set(range(vocab)))
        self._tokenizer = tokenizer

    def __call__(self, text: str) -> list[int]:
        return self._tokenizer.encode_within(text)

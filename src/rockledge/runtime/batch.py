"""Several sequences that grow in lockstep, one token each a step: the weights are read once for all."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from rockledge.errors import ContextError
from rockledge.runtime.executor import Executor
from rockledge.runtime.kv_cache import CachedSequence, PageCache, WindowPassedError
from rockledge.runtime.sampling import Sampling

Int32 = npt.NDArray[np.int32]
Float32 = npt.NDArray[np.float32]


class Batch:
    """Made by `Engine.batch`. `logits` fp32 [sequences, vocab] are those after the last token of each.

    Sequences do not see one another, and nothing ends one early: whoever steps decides when it is enough.
    """

    def __init__(
        self,
        cache: PageCache,
        read: Callable[[Int32, CachedSequence, Float32 | None], None],
        executor: Executor,
        context: int,
        prompts: Sequence[Int32],
        sampling: Sampling,
    ) -> None:
        """`read` runs a whole prompt, for which it reserves the pages, and gives the logits after it;
        `executor` runs the steps."""
        self._lock = executor.lock
        self._context = context
        self._read = read
        self._prompts = prompts
        self._ends = [len(prompt) for prompt in prompts]
        self._sequences: list[CachedSequence] = []
        self._step = executor.batch_step(len(prompts), sampling)
        self._drawn = 0
        try:
            for prompt, logits in zip(prompts, self._step.logits, strict=True):
                sequence = cache.open()
                self._sequences.append(sequence)
                read(prompt, sequence, logits[None])
        except BaseException:
            self.close()
            raise
        self._first = self._step.logits.copy()

    @property
    def logits(self) -> Float32:
        """Overwritten by the next step."""
        return self._step.logits

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens in the cache, of each sequence."""
        return tuple(sequence.length for sequence in self._sequences)

    def step(self) -> Int32:
        """Draws the next token of every sequence (int32 [sequences]) and computes the logits after it.

        Raises ContextError when a sequence has no room for it, CacheFullError when the pages are used up.
        """
        if max(self.lengths) >= self._context:
            raise ContextError(
                f"a sequence of the batch fills the context of {self._context} tokens; load with a larger one"
            )
        with self._lock:
            self._drawn += 1
            tokens = self._step.draw(self._drawn)
            for row, sequence in enumerate(self._sequences):
                sequence.reserve(1)
                self._step.place(row, sequence)
            self._step.run()
            for sequence in self._sequences:
                sequence.advance(1)
        return tokens

    def lengthen(self, tokens: int) -> None:
        """Lengthens sequences that are shorter to `tokens` by copies of their keys and values, and makes
        that the end of their prompts: for measurements, where a context must be long but not meaningful."""
        for sequence in self._sequences:
            sequence.repeat(tokens)
        self._ends = list(self.lengths)

    def rewind(self) -> None:
        """Back to the ends of the prompts, as if no step had been made. A prompt whose end a window has
        passed is read again, for which CacheFullError is possible."""
        for sequence, prompt, end in zip(self._sequences, self._prompts, self._ends, strict=True):
            try:
                sequence.truncate(end)
            except WindowPassedError:
                sequence.truncate(0)
                self._read(prompt, sequence, None)
                sequence.repeat(end)
        self._step.logits[:] = self._first
        self._drawn = 0

    def close(self) -> None:
        """Gives the pages back. Closing twice is allowed."""
        for sequence in self._sequences:
            sequence.close()

    def __enter__(self) -> "Batch":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

"""The weights of a checkpoint in the basis that is quantised, without PyTorch: the list in `folds`, done by
NumPy and the native core in parts that several threads share.

`quantize` does the same list in PyTorch (`quantization.transforming.rotate`), and balances channels after it.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from rockledge.conversion.folds import Fold, Turns
from rockledge.conversion.native_rows import turn
from rockledge.formats.hadamard import Rotation
from rockledge.model.block import Decoder, Linear, decoder, layer_name
from rockledge.model.checkpoint import StoredCheckpoint

Float32 = npt.NDArray[np.float32]
_PART = 1 << 20  # weights that a thread works on at a time: they stay in its cache


@dataclass(frozen=True)
class RotatedWeights:
    """`checkpoint` turned by `rotation`; the linears of layers are computed when asked for, and nothing is
    kept."""

    checkpoint: StoredCheckpoint
    rotation: Rotation
    threads: Executor

    @cached_property
    def turns(self) -> Turns:
        """What is turned."""
        return Turns(self.tree, stream=True, down=True)

    @property
    def tree(self) -> Decoder:
        """The checkpoint's decoder."""
        return decoder(self.checkpoint.config)

    def layer_linear(self, layer: int, linear: Linear) -> tuple[Float32, Float32 | None]:
        """The weights fp32 [N, K] of a linear of a layer, and its bias fp32 [N]."""
        name = layer_name(layer, linear.role)
        weights = np.empty((linear.rows, linear.cols), np.float32)

        def read(part: slice) -> None:
            weights[part] = self.checkpoint.rows(name, part.start, part.stop - part.start)

        self.each_part(linear.rows, linear.cols, read)
        bias = self.checkpoint.tensor(name + ".bias").copy() if linear.bias else None
        for fold in self.turns.layer(layer):
            if fold.role != linear.role:
                continue
            if fold.side == "cols":
                self._fold_cols(weights, fold, self._gain_of(fold, layer_name(layer, fold.gain)))
                continue
            self._fold_rows(weights, fold)
            if bias is not None:
                self._fold(bias[None], fold, None)
        return weights, bias

    def end_rows(self, linear: Linear, first: int, count: int) -> Float32:
        """Rows `first` .. `first + count - 1` of the stored embedding or head, fp32 [count, hidden]."""
        rows = np.array(self.checkpoint.rows(linear.role, first, count))
        for fold in self.turns.ends(linear):
            self._fold(rows, fold, self._gain_of(fold, fold.gain))
        return rows

    def gain(self, name: str) -> Float32:
        """The gain of a norm that the artifact keeps, by its full name."""
        gain = self.checkpoint.tensor(name).copy()
        if name.startswith("layers."):
            _, layer, role = name.split(".", 2)
            for fold in self.turns.layer(int(layer)):
                if fold.role == role:
                    self._fold(gain[None], fold, None)
        return gain

    def each_part(self, rows: int, cols: int, work: Callable[[slice], None], least: int = 1) -> None:
        """Calls `work` for runs of rows, multiples of `least` but for the last, on all threads; raises what
        it raises."""
        for _ in self.threads.map(work, parts(rows, cols, least)):
            pass

    def _gain_of(self, fold: Fold, name: str) -> Float32 | None:
        return self.checkpoint.tensor(name) if fold.kind == "gain" else None

    def _fold_cols(self, weights: Float32, fold: Fold, gain: Float32 | None) -> None:
        rows, cols = weights.shape
        self.each_part(rows, cols, lambda part: self._fold(weights[part], fold, gain))

    def _fold_rows(self, weights: Float32, fold: Fold) -> None:
        """What the matrix writes is folded: the same on its transpose, a few columns at a time."""

        def work(part: slice) -> None:
            columns = np.ascontiguousarray(weights[:, part].T)
            self._fold(columns, fold, None)
            weights[:, part] = columns.T

        if fold.kind == "multiplier":
            self._fold_cols(weights, fold, None)
        else:
            rows, cols = weights.shape
            self.each_part(cols, rows, work)

    def _fold(self, rows: Float32, fold: Fold, gain: Float32 | None) -> None:
        """Folds the last axis of C-contiguous `rows` [n, width] in place."""
        if gain is not None:
            rows *= gain
        elif fold.kind == "multiplier":
            rows *= np.float32(fold.factor)
        elif fold.kind == "stream":
            turn(rows, self.rotation)
        else:
            turn(rows, fold.size)


def parts(rows: int, cols: int, least: int = 1) -> Iterator[slice]:
    """Runs of rows of about a million weights, multiples of `least` but for the last."""
    step = max(1, _PART // (cols * least)) * least
    return (slice(first, min(first + step, rows)) for first in range(0, rows, step))


def processors() -> int:
    """How many threads this process can run at once."""
    return len(os.sched_getaffinity(0))

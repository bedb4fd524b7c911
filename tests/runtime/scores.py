"""Scores of tokens by their definition, in NumPy: what the core's are compared with."""

import numpy as np
import numpy.typing as npt

from rockledge.runtime.sampling import TokenLogprob


def log_probabilities(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """log softmax over the last axis of logits fp32 [..., vocab], as float64 of the same shape."""
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    wide -= np.log(np.exp(wide).sum(axis=-1, keepdims=True))
    return wide


def most_probable(logprobs: npt.NDArray[np.float64], count: int) -> tuple[TokenLogprob, ...]:
    """The `count` most probable tokens of logprobs [vocab], best first, ties by rising id."""
    count = min(count, logprobs.shape[0])
    if count == 0:
        return ()
    # All that tie with the last place are candidates: the choice must not depend on the partition.
    threshold = np.partition(logprobs, -count)[-count]
    candidates = np.flatnonzero(logprobs >= threshold)
    order = np.lexsort((candidates, -logprobs[candidates]))[:count]
    return tuple(TokenLogprob(int(i), float(logprobs[i])) for i in candidates[order])

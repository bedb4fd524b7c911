"""The float model as eval wants it: a callable from tokens to logits that still streams one block at a time.

All windows go through a block together, so the weights are read once per evaluation and not once per window;
what stays in memory is the last hidden state of every window (4 bytes x hidden a token) and the head.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from rockledge.model.block import decoder
from rockledge.model.checkpoint import Checkpoint
from rockledge.quantization.float_model.forward import (
    block_forward,
    block_weights,
    head_forward,
    head_weights,
    scaled,
)

# Windows of one forward call: enough to use the processor well, few enough to keep activations small.
_BATCH = 8


class ReferenceLogits:
    """Float logits of `windows` (token lists) that were announced when it was made.

    Calling it with one of the windows returns fp32 [tokens, vocab]; any other tokens are run on the spot,
    which reads the whole checkpoint again. `progress` is called with (blocks done, blocks in all). `kept` is
    a file of the hidden states of equally long windows: read if it is there, written if not; the caller makes
    sure that it belongs to this model and these windows.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        windows: Sequence[Sequence[int]] = (),
        *,
        device: torch.device | str = "cpu",
        progress: Callable[[int, int], None] | None = None,
        kept: Path | None = None,
    ) -> None:
        self._checkpoint = checkpoint
        self._tree = decoder(checkpoint.config)
        self._device = device
        self._head = head_weights(checkpoint, device)
        states = self._run(windows, progress) if kept is None else self._kept(kept, windows, progress)
        self._hidden = dict(zip(map(tuple, windows), states, strict=True))

    def __call__(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Logits fp32 [len(tokens), vocab] of one sequence that starts at position 0."""
        hidden = self._hidden.get(tuple(tokens))
        if hidden is None:
            (hidden,) = self._run([tokens], None)
        with torch.no_grad():
            logits = head_forward(self._head, hidden.to(self._device), self._tree)
        result: NDArray[np.float32] = logits.cpu().numpy()
        return result

    def _kept(
        self, path: Path, windows: Sequence[Sequence[int]], progress: Callable[[int, int], None] | None
    ) -> list[torch.Tensor]:
        """The states in `path`, which are computed first where they are missing. Mapped, not read."""
        if not path.exists():
            partial = path.with_suffix(".partial.npy")
            np.save(partial, torch.stack(self._run(windows, progress)).numpy())
            partial.replace(path)
        # Copy-on-write, because PyTorch wants memory that could be written.
        return list(torch.from_numpy(np.load(path, mmap_mode="c")))

    @torch.no_grad()
    def _run(
        self, windows: Sequence[Sequence[int]], progress: Callable[[int, int], None] | None
    ) -> list[torch.Tensor]:
        """Hidden states [tokens, hidden] after the last block, one for each window, in main memory."""
        if not windows:
            return []
        batches = _batches([len(window) for window in windows])
        embedding = torch.from_numpy(self._checkpoint.tensor("embed"))
        states = [
            scaled(embedding[torch.tensor([list(windows[i]) for i in batch])], self._tree)
            for batch in batches
        ]
        del embedding
        layers = len(self._tree.layers)
        for layer in range(layers):
            weights = block_weights(self._checkpoint, layer, self._device)
            for i, state in enumerate(states):
                states[i] = block_forward(weights, state.to(self._device), self._tree, layer).cpu()
            if progress is not None:
                progress(layer + 1, layers)
        found = {
            i: state
            for batch, group in zip(batches, states, strict=True)
            for i, state in zip(batch, group, strict=True)
        }
        return [found[i] for i in range(len(windows))]


def _batches(lengths: Sequence[int]) -> list[list[int]]:
    """Windows (by index) that can run together: at most `_BATCH`, all of one length."""
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if not batches or len(batches[-1]) == _BATCH or lengths[batches[-1][0]] != lengths[i]:
            batches.append([])
        batches[-1].append(i)
    return batches

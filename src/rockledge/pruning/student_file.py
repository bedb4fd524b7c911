"""The safetensors file of a pruned model, written piece by piece in the types that its teacher has."""

import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from rockledge.artifact.publish import writing
from rockledge.errors import RockledgeError
from rockledge.model.config import ModelConfig
from rockledge.model.family import stored_tensors
from rockledge.tensor_file import ITEM_BYTES, header_bytes, place

_TYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


class StudentFile:
    """`model.safetensors` at `path`, for a model with `config`; `types` by the name of each tensor in the
    file: BF16, F16 or F32. Its space is taken at once. `shown` is the place that errors name."""

    def __init__(self, path: Path, config: ModelConfig, types: Mapping[str, str], shown: Path) -> None:
        self._shown = shown
        self._pieces = {tensor.name: tensor for tensor in stored_tensors(config)}
        shapes = {t.hf: (t.in_hf.rows, *t.shape[1:]) for t in self._pieces.values()}
        entries = place((name, types[name], shape) for name, shape in shapes.items())
        header = header_bytes(entries, {"format": "pt"})
        self._start, self._entries = len(header), {entry.name: entry for entry in entries}
        self._missing = set(self._pieces)
        with writing(shown):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
            try:
                os.posix_fallocate(self._descriptor, 0, self._start + entries[-1].end)
                self._put(header, 0)
            except BaseException:
                os.close(self._descriptor)
                raise

    def __enter__(self) -> "StudentFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                assert not self._missing, sorted(self._missing)[:3]
                with writing(self._shown):
                    os.fsync(self._descriptor)
        finally:
            os.close(self._descriptor)

    def write(self, name: str, values: Tensor) -> None:
        """One tensor by its canonical name, fp32. RockledgeError where its type cannot hold it."""
        piece = self._pieces[name]
        assert tuple(values.shape) == piece.shape, (name, values.shape, piece.shape)
        entry = self._entries[piece.hf]
        stored = (values.cpu() - piece.hf_offset).to(_TYPES[entry.dtype]).contiguous()
        if not bool(torch.isfinite(stored).all()):
            raise RockledgeError(
                f"the pruned {name} is not finite in {entry.dtype}; give a teacher in BF16 or F32"
            )
        row = ITEM_BYTES[entry.dtype] * (piece.shape[1] if len(piece.shape) > 1 else 1)
        data = stored.view(torch.uint8).numpy().tobytes()
        with writing(self._shown):
            self._put(data, self._start + entry.begin + piece.in_hf.first * row)
        self._missing.discard(name)

    def _put(self, data: bytes, at: int) -> None:
        view = memoryview(data)
        while view:
            done = os.pwrite(self._descriptor, view, at)
            view, at = view[done:], at + done


def file_bytes(config: ModelConfig, types: Mapping[str, str]) -> int:
    """Bytes of the data of such a file."""
    return sum(
        ITEM_BYTES[types[t.hf]] * t.shape[0] * (t.shape[1] if len(t.shape) > 1 else 1)
        for t in stored_tensors(config)
    )

"""The safetensors file of a pruned model, written piece by piece in the types that its teacher has."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from rockledge.artifact.placed_file import PlacedFile
from rockledge.errors import RockledgeError
from rockledge.model.config import ModelConfig
from rockledge.model.family import stored_tensors
from rockledge.tensor_file import ITEM_BYTES

_TYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


class StudentFile(PlacedFile):
    """`model.safetensors` at `path`, for a model with `config`; `types` by the name of each tensor in the
    file: BF16, F16 or F32. `shown` is the place that errors name."""

    def __init__(self, path: Path, config: ModelConfig, types: Mapping[str, str], shown: Path) -> None:
        self._pieces = {tensor.name: tensor for tensor in stored_tensors(config)}
        self._missing = set(self._pieces)
        shapes = {t.hf: (t.in_hf.rows, *t.shape[1:]) for t in self._pieces.values()}
        super().__init__(path, [(name, types[name], shape) for name, shape in shapes.items()], shown)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        assert error is not None or not self._missing, sorted(self._missing)[:3]

    def write_piece(self, name: str, values: Tensor) -> None:
        """One tensor by its canonical name, fp32. RockledgeError where its type cannot hold it."""
        piece = self._pieces[name]
        assert tuple(values.shape) == piece.shape, (name, values.shape, piece.shape)
        dtype = self.entries[piece.hf].dtype
        stored = (values.cpu() - piece.hf_offset).to(_TYPES[dtype]).contiguous()
        if not bool(torch.isfinite(stored).all()):
            raise RockledgeError(f"the pruned {name} is not finite in {dtype}; give a teacher in BF16 or F32")
        row = ITEM_BYTES[dtype] * (piece.shape[1] if len(piece.shape) > 1 else 1)
        self.write(piece.hf, stored.view(torch.uint8).numpy().tobytes(), piece.in_hf.first * row)
        self._missing.discard(name)


def file_bytes(config: ModelConfig, types: Mapping[str, str]) -> int:
    """Bytes of the data of such a file."""
    return sum(
        ITEM_BYTES[types[t.hf]] * t.shape[0] * (t.shape[1] if len(t.shape) > 1 else 1)
        for t in stored_tensors(config)
    )

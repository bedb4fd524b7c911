"""`--to gguf`: a directory with a GGUF file that llama.cpp loads."""

import shutil
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rockledge.artifact.publish import writing
from rockledge.errors import UsageError
from rockledge.export.gguf_metadata import Described, check_read, described
from rockledge.export.gguf_types import KINDS, kind_of, rounded
from rockledge.export.gguf_vocabulary import check_vocabulary, vocabulary
from rockledge.export.measure import cost_lines, rounding_cost
from rockledge.export.plain import PlainModel
from rockledge.export.request import ExportRequest, Target, Written
from rockledge.model.checkpoint import Checkpoint
from rockledge.model.config import ModelConfig
from rockledge.model.family import StoredTensor, stored_tensors
from rockledge.model.gguf_reader import GgufCheckpoint
from rockledge.units import show_size

FILE: Final = "model.gguf"
_QUANTIZATION_VERSION: Final = 2  # GGML_QNT_VERSION


def write_gguf(model: PlainModel, folder: Path, out: Path, request: ExportRequest) -> Written:
    """Fills `folder`. UsageError where llama.cpp's architecture cannot hold the model or its tokenizer."""
    about = described(model.config)
    words = vocabulary(model.files(), about.config)
    check_vocabulary(words, model.files(), about.config)
    plans = _plans(model, about, request.kind)
    _write(model, folder / FILE, out, about, {**about.metadata_keys(), **words}, plans, request)
    read = GgufCheckpoint.open(folder / FILE)
    check_read(about.config, read.config, about.architecture)
    by_kind: dict[str, list[str]] = defaultdict(list)
    for plan in plans:
        if plan.matrix:
            by_kind[plan.kind].extend(part.name for part in plan.parts)
    shown: dict[str, Checkpoint] = {
        kind: _Partly(model, read, frozenset(names)) for kind, names in sorted(by_kind.items())
    }
    if len(shown) > 1:
        shown["all of them"] = read
    exact = set(by_kind) == {"f32"}
    cost = None if exact else rounding_cost(model, shown, request)
    report = {
        "type": request.kind,
        "architecture": about.architecture,
        "matrices": {kind: len(names) for kind, names in sorted(by_kind.items())},
        "context": about.config.context,
        "cost": cost,
    }
    lines = ["Nothing was rounded."] if exact else cost_lines(cost) if cost else []
    return Written(report, tuple(lines), about.notes)


@dataclass(frozen=True)
class _Plan:
    """One tensor of the file: the canonical tensors that are its rows, and its type."""

    name: str
    parts: tuple[StoredTensor, ...]
    kind: str

    @property
    def matrix(self) -> bool:
        return len(self.parts[0].shape) == 2

    @property
    def shape(self) -> tuple[int, ...]:
        return (sum(part.shape[0] for part in self.parts), *self.parts[0].shape[1:])


def _plans(model: PlainModel, about: Described, kind: str) -> list[_Plan]:
    stored: dict[str, list[StoredTensor]] = defaultdict(list)
    for tensor in stored_tensors(about.config):
        stored[tensor.gguf].append(tensor)
    if about.holds.own_head and about.config.tied:
        stored["output.weight"] = stored["token_embd.weight"]
    plans = []
    for name, parts in stored.items():
        rows = sum(part.shape[0] for part in parts)
        chosen = "f32"
        if len(parts[0].shape) == 2:
            bits = sum(part.shape[0] * model.bits(part.name) for part in parts) / rows
            chosen = kind_of(kind, bits, parts[0].shape[1])
        plans.append(_Plan(name, tuple(parts), chosen))
    return plans


def _write(
    model: PlainModel,
    path: Path,
    out: Path,
    about: Described,
    metadata: Mapping[str, Any],
    plans: list[_Plan],
    request: ExportRequest,
) -> None:
    import gguf

    writer = gguf.GGUFWriter(path, about.architecture)
    writer.add_type("model")
    writer.add_name(Path(str(model.path)).name)
    writer.add_quantization_version(_QUANTIZATION_VERSION)
    for key, value in metadata.items():
        _add(writer, key, value)
    sizes = 0
    for plan in plans:
        code = gguf.GGMLQuantizationType[plan.kind.upper()]
        block, size = gguf.GGML_QUANT_SIZES[code]
        count = int(np.prod(plan.shape)) // block * size
        sizes += count
        if plan.kind in ("f32", "f16"):
            dtype = np.dtype(np.float32 if plan.kind == "f32" else np.float16)
            writer.add_tensor_info(plan.name, plan.shape, dtype, count)
        else:
            row = (*plan.shape[:-1], plan.shape[-1] // block * size)
            writer.add_tensor_info(plan.name, row, np.dtype(np.uint8), count, code)
    for name, values in about.factors.items():
        writer.add_tensor_info(name, values.shape, values.dtype, values.nbytes)
    free = shutil.disk_usage(path.parent).free
    if sizes > free:
        raise UsageError(
            f"the file takes {show_size(sizes, enough=True)}, but {show_size(free)} are free at {out}; free "
            "some space there, or choose another disk with -o"
        )
    try:
        with writing(out):
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
        for done, plan in enumerate(plans, 1):
            data = _data(model, about, plan)
            with writing(out):
                writer.write_tensor_data(data)
            request.progress("tensors", done, len(plans))
        with writing(out):
            for values in about.factors.values():
                writer.write_tensor_data(values)
            writer.flush()
    finally:
        writer.close()


def _data(model: PlainModel, about: Described, plan: _Plan) -> npt.NDArray[Any]:
    interleaved = about.interleaved
    parts = []
    for part in plan.parts:
        values = model.tensor(part.name)
        if interleaved and part.rotary_heads:
            values = interleave(values, part.rotary_heads)
        parts.append(values)
    whole = np.concatenate(parts) if len(parts) > 1 else parts[0]
    if not plan.matrix or plan.kind == "f32":
        return np.ascontiguousarray(whole)
    data = rounded(whole, plan.kind)
    return data.view(np.float16) if plan.kind == "f16" else data


def interleave(values: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    """Rows of each head from halves (0, 1, ..) to neighbouring rotary pairs (0, 0', 1, 1', ...), as
    llama.cpp's converter permutes them."""
    rest = values.shape[1:]
    return np.ascontiguousarray(values.reshape(heads, 2, -1, *rest).swapaxes(1, 2)).reshape(values.shape)


def _add(writer: Any, key: str, value: Any) -> None:
    """One pair, of the type that llama.cpp wants: whole numbers as u32."""
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


@dataclass(frozen=True)
class _Partly:
    """The artifact's floats, but the tensors `names` as the file has them."""

    plain: PlainModel
    file: GgufCheckpoint
    names_of_file: Collection[str]

    @property
    def config(self) -> ModelConfig:
        return replace(self.plain.config, context=self.file.config.context)

    @property
    def path(self) -> Path:
        return self.file.path

    @property
    def stored(self) -> str:
        return self.file.stored

    @property
    def notes(self) -> tuple[str, ...]:
        return ()

    def files(self) -> dict[str, bytes]:
        return self.plain.files()

    def names(self) -> list[str]:
        return self.plain.names()

    def shape(self, name: str) -> tuple[int, ...]:
        return self.plain.shape(name)

    def tensor(self, name: str) -> npt.NDArray[np.float32]:
        return self.file.tensor(name) if name in self.names_of_file else self.plain.tensor(name)


GGUF: Final = Target("gguf", "a GGUF file that llama.cpp loads", KINDS, write_gguf)

"""Writing an artifact: tensor by tensor into a hidden directory, which then takes its name."""

import errno
import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from rockledge import tensor_file
from rockledge.artifact.ends import END, NO_ENDS, ends_sum
from rockledge.artifact.layout import (
    CHUNK,
    CONFIG,
    HEADER_SUM,
    META,
    NO_SUM,
    NUMPY,
    PICTURE,
    RECIPE,
    REPORT,
    REPORT_TEXT,
    TENSORS,
    UNCHECKED,
    VERSION,
    ArtifactPlan,
    LinearSpec,
    contradiction,
    described_online,
    stored_tensors_of,
)
from rockledge.artifact.publish import publish_directory, write_file, writing
from rockledge.artifact.reader import open_artifact
from rockledge.errors import ArtifactError
from rockledge.formats.bands import ALIGN, table_widths
from rockledge.formats.packing import PackedLinear
from rockledge.model.hf_config import config_to_hf


def check_place(path: str | Path, *, overwrite: bool = False) -> None:
    """Raises the ArtifactError that a writer to `path` would: something is there, and it is not an empty
    directory, or with `overwrite` not an artifact either."""
    place = Path(path)
    if place.exists() and not (place.is_dir() and not any(place.iterdir())):
        _check_artifact(place)
        if not overwrite:
            raise ArtifactError(
                f"{path} holds an artifact already; add --overwrite to replace it, or choose another place"
            )


def _check_artifact(path: Path) -> None:
    """Only an artifact with nothing foreign in it is replaced."""
    refusal = f"{path} exists and is not an artifact alone; choose another place or remove it yourself"
    try:
        old = open_artifact(path)
    except ArtifactError as error:
        raise ArtifactError(refusal) from error
    if {entry.name for entry in path.iterdir()} - {TENSORS, CONFIG, *old.file_names, *UNCHECKED}:
        raise ArtifactError(refusal)


class ArtifactWriter:
    """Writes an artifact tensor by tensor, in any order, so that a large one is never in memory.

    Use as a context manager: at its end the directory appears under `path`, complete; after an exception
    (Ctrl-C too) nothing does, and an artifact that was there stays. With `overwrite` the new one then takes
    its place; without, an artifact that is there is an error. Raises ArtifactError.
    """

    def __init__(self, path: str | Path, plan: ArtifactPlan, *, overwrite: bool = False) -> None:
        self._path = Path(path)
        self._overwrite = overwrite
        self._plan = plan
        wrong = contradiction(plan.config, plan.linears, plan.arrays, plan.rotation_shape, plan.online)
        if wrong is not None:
            raise ArtifactError(f"the planned artifact contradicts its model ({wrong}); correct the plan")
        stored = stored_tensors_of(plan.linears, plan.arrays, plan.rotation_shape)
        self._entries = {
            entry.name: entry
            for entry in tensor_file.place((tensor.name, tensor.dtype, (tensor.flat,)) for tensor in stored)
        }
        self._sums = dict.fromkeys(self._entries, NO_SUM)
        self._ends = dict.fromkeys(self._entries, NO_ENDS)
        self._files = {
            **plan.files,
            CONFIG: (json.dumps(config_to_hf(plan.config), indent=2) + "\n").encode(),
        }
        for name in self._files:
            if name in UNCHECKED or name == TENSORS or Path(name).name != name or name.startswith("."):
                raise ArtifactError(
                    f"{name!r} cannot be the name of a model's file in an artifact; rename it"
                )
        self._data_start = len(self._header())
        self._stack = ExitStack()

    def __enter__(self) -> "ArtifactWriter":
        self._partial = self._stack.enter_context(
            publish_directory(self._path, partial(check_place, overwrite=self._overwrite))
        )
        try:
            with writing(self._path):
                self._descriptor = os.open(self._partial / TENSORS, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
                self._stack.callback(os.close, self._descriptor)
                _reserve(self._descriptor, self._data_start + self._data_bytes())
            if self._plan.rotation is not None:
                self._put("rotation.signs", self._plan.rotation.signs)
                self._put("rotation.mix", self._plan.rotation.mix)
        except BaseException as error:
            self._stack.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            try:
                self._finish()
            except BaseException as failure:
                self._stack.__exit__(type(failure), failure, failure.__traceback__)
                raise
        self._stack.__exit__(kind, error, trace)

    def linear(self, name: str, packed: PackedLinear) -> None:
        """Writes one linear; it must have the rows, inputs, bands and bias that the plan gave it."""
        spec = self._plan.linears.get(name)
        planes, bias = (spec.planes if spec else 1), packed.bias is not None
        if spec != LinearSpec(packed.rows, packed.cols, packed.bands, planes, bias):
            raise ArtifactError(f"linear {name!r} is not packed as it was planned; plan it as it is packed")
        self._put(f"{name}.codes", packed.codes)
        if table_widths(packed.bands):
            self._put(f"{name}.index", packed.index)
            self._put(f"{name}.tables", packed.tables)
        self._put(f"{name}.scale", packed.scale)
        if packed.bias is not None:
            self._put(f"{name}.bias", packed.bias)

    def array(self, name: str, values: npt.NDArray[np.float32]) -> None:
        """Writes one of the plan's fp32 arrays."""
        if self._plan.arrays.get(name) != values.shape:
            raise ArtifactError(f"array {name!r} of shape {values.shape} is not in the plan; plan it first")
        self._put(name, values)

    def report(
        self, report: Mapping[str, Any], text: str | None = None, picture: bytes | None = None
    ) -> None:
        """Writes report.json and, where given, `text` as report.md and `picture` (PNG) as widths.png."""
        with writing(self._path):
            write_file(self._partial / REPORT, (json.dumps(report, indent=2) + "\n").encode())
            if text is not None:
                # A command line may name files that are not Unicode.
                write_file(self._partial / REPORT_TEXT, text.encode(errors="backslashreplace"))
            if picture is not None:
                write_file(self._partial / PICTURE, picture)

    def _data_bytes(self) -> int:
        return max((entry.end for entry in self._entries.values()), default=0)

    def _header(self) -> bytes:
        plan, rotation = self._plan, self._plan.rotation
        linears = {
            name: {
                "rows": spec.rows,
                "cols": spec.cols,
                "bands": [[band.start, band.rows, band.bits] for band in spec.bands],
                "planes": spec.planes,
                "bias": spec.bias,
            }
            for name, spec in plan.linears.items()
        }
        described = {
            "version": VERSION,
            "parameters": plan.parameters,
            "linears": linears,
            "arrays": {name: list(shape) for name, shape in plan.arrays.items()},
            "rotation": None if rotation is None else {"block": rotation.block, "odd": rotation.odd},
            **described_online(plan.online),
            "files": {
                name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
                for name, data in self._files.items()
            },
            "tensors": self._sums,
            "ends": self._ends,
        }
        metadata = {"format": "pt", META: json.dumps(described, separators=(",", ":")), HEADER_SUM: NO_SUM}
        return tensor_file.header_bytes(self._entries.values(), metadata)

    def _put(self, name: str, values: npt.NDArray[Any]) -> None:
        entry = self._entries[name]
        room = entry.end - entry.begin
        if values.dtype != NUMPY[entry.dtype] or not room - ALIGN < values.nbytes <= room:
            raise ArtifactError(
                f"tensor {name!r} has {values.nbytes} bytes of {values.dtype}, "
                f"expected {room} of {entry.dtype}"
            )
        data = memoryview(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
        padding = bytes(room - len(data))
        self._ends[name] = ends_sum(*_ends_of(data, padding))
        digest = hashlib.sha256()
        with writing(self._path):
            position = self._data_start + entry.begin
            for part in (data, memoryview(padding)):
                digest.update(part)
                while len(part):
                    done = os.pwrite(self._descriptor, part[:CHUNK], position)
                    part, position = part[done:], position + done
        self._sums[name] = digest.hexdigest()

    def _finish(self) -> None:
        missing = [name for name, digest in self._sums.items() if digest == NO_SUM]
        if missing:
            raise ArtifactError(
                f"{len(missing)} planned tensors were not written, such as {missing[0]!r}; write all of them"
            )
        header = self._header()
        # The header's checksum is taken over the header with zeros in the checksum's place.
        place = header.rindex(NO_SUM.encode())
        digest = hashlib.sha256(header[8:]).hexdigest().encode()
        header = header[:place] + digest + header[place + len(digest) :]
        with writing(self._path):
            os.pwrite(self._descriptor, header, 0)
            os.fsync(self._descriptor)
            # Written piece by piece it is cached in small pages; its first reader brings in huge ones.
            os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            for name, data in self._files.items():
                write_file(self._partial / name, data)
            if self._plan.recipe is not None:
                write_file(self._partial / RECIPE, self._plan.recipe.encode())


def _ends_of(data: memoryview, padding: bytes) -> tuple[bytes, bytes]:
    """The first and last bytes of a tensor with its padding, without a copy of what is between."""
    last = bytes(data[-END:]) + padding
    return (bytes(data[:END]) + padding)[:END], last[-END:]


def _reserve(descriptor: int, size: int) -> None:
    """Takes the file's whole space at once, so that a full disk shows before the work and not after it."""
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # file systems without reservation
            raise
        os.ftruncate(descriptor, size)

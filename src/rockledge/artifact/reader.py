"""Opening an artifact: checks without reading tensors, a mapping, views; and the slow check of every byte."""

import hashlib
import mmap
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rockledge import tensor_file
from rockledge.artifact.ends import stored_ends
from rockledge.artifact.layout import (
    CHUNK,
    CONFIG,
    HEADER_SUM,
    META,
    NO_SUM,
    NUMPY,
    RECIPE,
    REPORT,
    TENSORS,
    VERSION,
    LinearSpec,
    contradiction,
    header_sum,
    online_of,
    stored_tensors_of,
)
from rockledge.artifact.uncached import OF_THE_DISK, UncachedFile, disk_error
from rockledge.errors import ArtifactError, CheckpointError, RockledgeError
from rockledge.formats.bands import ALIGN, TABLES, Band, check_bands, table_widths
from rockledge.formats.hadamard import Rotation
from rockledge.formats.packing import PackedLinear
from rockledge.model.config import ModelConfig
from rockledge.model.hf_config import config_from_hf
from rockledge.regular_file import open_regular, read_regular
from rockledge.tensor_file import Header, whole


class Artifact:
    """An open artifact: its tensors are read-only views of the mapped file. Made by `open_artifact`."""

    def __init__(self, path: Path) -> None:
        """Checks version, header checksum and every range; raises ArtifactError."""
        if not path.is_dir():
            raise ArtifactError(f"{path} is not a directory; give the one that `rockledge quantize` wrote")
        self.path = path
        header = tensor_file.read_header(path / TENSORS)
        described = _described(header, path)
        self._header = header
        self._sums: dict[str, str] = _table(described, "tensors", path)
        self._ends: dict[str, Any] = _table(described, "ends", path) if "ends" in described else {}
        self._files: dict[str, dict[str, Any]] = _table(described, "files", path)
        self.config = self._read_config()
        try:
            self.linears: Mapping[str, LinearSpec] = {
                name: _linear_spec(value) for name, value in _table(described, "linears", path).items()
            }
            self.arrays: Mapping[str, tuple[int, ...]] = {
                name: tuple(_whole(size) for size in shape) for name, shape in described["arrays"].items()
            }
            rotation = described["rotation"]
            rotation_shape = (
                None if rotation is None else (_whole(rotation["block"]), _whole(rotation["odd"]))
            )
            self.online: Mapping[str, int] = online_of(described)
            self.parameters = _whole(described["parameters"])
            stored = stored_tensors_of(self.linears, self.arrays, rotation_shape)
        except (KeyError, TypeError, ValueError, AttributeError, RockledgeError) as error:
            raise ArtifactError(
                f"the description in {path / TENSORS} is damaged ({error}); fetch it again"
            ) from error
        wrong = contradiction(self.config, self.linears, self.arrays, rotation_shape, self.online)
        if wrong is not None:
            raise ArtifactError(f"the artifact {path} contradicts itself ({wrong}); fetch it again")
        self._stored = {tensor.name: tensor for tensor in stored}
        self._check_tensors()
        self._map = self._mapped()
        self.rotation: Rotation | None = None
        if rotation_shape is not None:
            self.rotation = Rotation(
                *rotation_shape, self._view("rotation.signs"), self._view("rotation.mix")
            )

    @property
    def tensor_bytes(self) -> int:
        """Bytes of all tensors."""
        return self._header.data_bytes

    @property
    def mapped(self) -> npt.NDArray[np.uint8]:
        """The whole file of tensors as it was mapped."""
        return np.frombuffer(self._map, np.uint8)

    @property
    def digest(self) -> str:
        """SHA-256 of the header, which has the checksums of all else: the name of what is in here."""
        return self._header.metadata[HEADER_SUM]

    @property
    def bits_per_weight(self) -> float:
        """8 x all tensor bytes / parameters of the checkpoint (a tied matrix once)."""
        return 8.0 * self.tensor_bytes / self.parameters

    @property
    def file_names(self) -> tuple[str, ...]:
        """Names of the model's small files, config.json among them."""
        return tuple(self._files)

    @cached_property
    def files(self) -> dict[str, bytes]:
        """The model's small files: tokenizer.json and the like."""
        return {name: self._read(name) for name in self._files}

    @property
    def recipe(self) -> str | None:
        """Text of recipe.yaml, None if it is missing."""
        return self._read(RECIPE).decode(errors="replace") if (self.path / RECIPE).is_file() else None

    @property
    def report(self) -> dict[str, Any] | None:
        """Contents of report.json, None if it is missing."""
        if not (self.path / REPORT).is_file():
            return None
        return tensor_file.parse_json(self._read(REPORT), str(self.path / REPORT))

    def linear(self, name: str) -> PackedLinear:
        """One linear; its arrays are views of the file, nothing is copied."""
        spec = self.linears.get(name)
        if spec is None:
            raise ArtifactError(f"the artifact {self.path} has no linear {name!r}; take one of `linears`")
        tabled = bool(table_widths(spec.bands))
        return PackedLinear(
            rows=spec.rows,
            cols=spec.cols,
            bands=spec.bands,
            codes=self._view(f"{name}.codes"),
            index=self._view(f"{name}.index") if tabled else np.zeros(0, np.uint8),
            tables=self._view(f"{name}.tables") if tabled else np.zeros((0, TABLES, 16), np.int8),
            scale=self._view(f"{name}.scale"),
            bias=self._view(f"{name}.bias") if spec.bias else None,
        )

    def array(self, name: str) -> npt.NDArray[np.float32]:
        """One of the other fp32 tensors (`arrays` names them), as a view of the file."""
        if name not in self.arrays:
            raise ArtifactError(f"the artifact {self.path} has no array {name!r}; take one of `arrays`")
        return self._view(name)

    def planes(self, name: str) -> int:
        """How many int8 planes the input of linear `name` takes: 1 or 2."""
        return self.linears[name].planes

    def check_ends(self, file: Path | None = None) -> None:
        """Compares the first and last bytes of every tensor with what was written, in some milliseconds;
        ArtifactError names what is damaged, DiskError says that the disk failed. An artifact from before
        these sums were stored has none to check. `file`: another name of the file of tensors.
        """
        start = self._header.data_start
        entries = [self._header.entries[name] for name in self._ends if name in self._header.entries]
        ranges = [(start + entry.begin, start + entry.end) for entry in entries]
        try:
            found = list(stored_ends(file or self.path / TENSORS, ranges))
        except OSError as error:
            if error.errno in OF_THE_DISK:
                raise disk_error(self.path / TENSORS, error.errno or 0) from error
            reason = (error.strerror or str(error)).lower()
            raise ArtifactError(
                f"{self.path / TENSORS} cannot be read ({reason}); fetch the artifact again"
            ) from error
        self._refuse([e.name for e, ends in zip(entries, found, strict=True) if ends != self._ends[e.name]])

    def verify(self, progress: Callable[[int], None] | None = None, file: UncachedFile | None = None) -> None:
        """Reads every byte and compares checksums; ArtifactError names what is damaged.

        `progress` is called with the number of bytes read since its last call. `file`: reads the tensors from
        there and leaves nothing in the page cache; DiskError where that fails.
        """
        bad = [
            name for name in self._files if hashlib.sha256(self._read(name)).hexdigest() != self._sum_of(name)
        ]
        for name, entry in self._header.entries.items():
            digest = hashlib.sha256()
            start, end = self._header.data_start + entry.begin, self._header.data_start + entry.end
            for part in self._mapped_parts(start, end) if file is None else file.parts(start, end):
                digest.update(part)
                if progress is not None:
                    progress(len(part))
            if digest.hexdigest() != self._sums[name]:
                bad.append(name)
        self._refuse(bad)

    def _mapped_parts(self, start: int, end: int) -> Iterator[memoryview]:
        for first in range(start, end, CHUNK):
            yield memoryview(self._map)[first : min(first + CHUNK, end)]

    def unmapped_file(self) -> UncachedFile:
        """The file of tensors for readers that leave nothing in the page cache.

        Raises DiskError, and ArtifactError when it is another file than the mapped one by now.
        """
        file = UncachedFile(self.path / TENSORS)
        try:
            header = b"".join(bytes(part) for part in file.parts(0, self._header.data_start))
            if file.bytes != len(self._map) or self._header.raw not in header:
                raise ArtifactError(f"{self.path / TENSORS} was replaced while it was opened; run this again")
        except BaseException:
            file.close()
            raise
        return file

    def read_sparsely(self) -> None:
        """From now on a read of the mapping brings in the pages that it touches, and none ahead."""
        with suppress(OSError):  # of kernels without huge pages
            self._map.madvise(mmap.MADV_NOHUGEPAGE)
        self._map.madvise(mmap.MADV_RANDOM)

    def forget(self) -> None:
        """Lets go of the mapped pages, so that the page cache can; a later read brings them back."""
        self._map.madvise(mmap.MADV_DONTNEED)

    def _refuse(self, bad: list[str]) -> None:
        """Raises ArtifactError for the `bad` tensors and files, if there are any."""
        if bad:
            shown = ", ".join(bad[:3]) + (f" and {len(bad) - 3} more" if len(bad) > 3 else "")
            raise ArtifactError(
                f"the artifact {self.path} is damaged: the checksum of {shown} is wrong; fetch it again"
            )

    def _sum_of(self, name: str) -> str:
        return str(self._files[name]["sha256"])

    def _read(self, name: str) -> bytes:
        try:
            return read_regular(self.path / name)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise ArtifactError(
                f"{self.path / name} cannot be read ({reason}); fetch the artifact again"
            ) from error

    def _read_config(self) -> ModelConfig:
        for name, about in self._files.items():
            if Path(name).name != name or not isinstance(about, dict) or not whole(about.get("bytes")):
                raise ArtifactError(
                    f"the description in {self.path / TENSORS} is damaged (file {name!r}); fetch it again"
                )
            found = self._size(name)
            if found != about["bytes"]:
                raise ArtifactError(
                    f"{self.path / name} has {found} bytes, expected {about['bytes']}; fetch it again"
                )
        text = self._read(CONFIG)
        if CONFIG not in self._files or hashlib.sha256(text).hexdigest() != self._files[CONFIG].get("sha256"):
            raise ArtifactError(
                f"{self.path / CONFIG} has changed since it was written; fetch the artifact again"
            )
        try:
            return config_from_hf(tensor_file.parse_json(text, str(self.path / CONFIG)))
        except CheckpointError as error:
            raise ArtifactError(
                f"{self.path / CONFIG} does not describe a model that this program runs: {error}"
            ) from error

    def _size(self, name: str) -> int:
        try:
            return (self.path / name).stat().st_size
        except OSError as error:
            raise ArtifactError(f"{self.path / name} is missing; fetch the artifact again") from error

    def _check_tensors(self) -> None:
        entries = self._header.entries
        if odd := set(entries) ^ set(self._stored) | set(entries) ^ set(self._sums):
            raise ArtifactError(
                f"tensor {min(odd)!r} of {self.path} is missing or not described; fetch the artifact again"
            )
        for name, tensor in self._stored.items():
            entry = entries[name]
            if (entry.dtype, entry.shape) != (tensor.dtype, (tensor.flat,)) or entry.begin % ALIGN:
                raise ArtifactError(
                    f"tensor {name!r} of {self.path} does not fit the description; fetch the artifact again"
                )
        if self._header.data_start % tensor_file.PAGE:
            raise ArtifactError(
                f"the data of {self.path / TENSORS} does not start on a page; write the artifact again"
            )

    def _mapped(self) -> mmap.mmap:
        try:
            with open_regular(self.path / TENSORS) as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:  # it is another file by now, or empty
            raise ArtifactError(
                f"{self.path / TENSORS} was replaced while it was opened; run this again"
            ) from error
        # In huge pages a decode step translates fewer addresses. What is not cached yet is read like that
        # from now on, if the file system can (ext4 since Linux 6.16); kernels without refuse the advice.
        with suppress(OSError):
            mapped.madvise(mmap.MADV_HUGEPAGE)
        return mapped

    def _view(self, name: str) -> npt.NDArray[Any]:
        tensor, entry = self._stored[name], self._header.entries[name]
        count = prod(tensor.shape)
        flat = np.frombuffer(self._map, NUMPY[tensor.dtype], count, self._header.data_start + entry.begin)
        return flat.reshape(tensor.shape)


def open_artifact(path: str | Path) -> Artifact:
    """Opens an artifact directory: fast checks, then a mapping. Raises ArtifactError with what is wrong."""
    return Artifact(Path(path))


def _described(header: Header, path: Path) -> dict[str, Any]:
    """Our metadata, after their version and checksum."""
    text, stated = header.metadata.get(META), header.metadata.get(HEADER_SUM, "")
    if text is None:
        raise ArtifactError(
            f"{path} holds a checkpoint, expected an artifact; run `rockledge quantize {path} -o DIR` first"
        )
    described = tensor_file.parse_json(text.encode(), f"the description in {path / TENSORS}")
    version = described.get("version")
    if whole(version) and int(version or 0) > VERSION:
        raise ArtifactError(
            f"the artifact {path} has version {version}, expected at most {VERSION}; update this program"
        )
    if not whole(version) or version != VERSION:
        raise ArtifactError(
            f"the artifact {path} states no known version, expected {VERSION}; write the artifact again"
        )
    if len(stated) != len(NO_SUM) or not stated.isalnum() or header_sum(header.raw, stated) != stated:
        raise ArtifactError(
            f"the header of {path / TENSORS} is damaged (its checksum is wrong); fetch it again"
        )
    return described


def _table(described: Mapping[str, Any], key: str, path: Path) -> dict[str, Any]:
    value = described.get(key)
    if not isinstance(value, dict):
        raise ArtifactError(
            f"the description in {path / TENSORS} is damaged ({key} is missing); fetch it again"
        )
    return value


def _whole(value: object) -> int:
    if not whole(value):
        raise ValueError(f"{value!r} is not a whole number")
    return int(str(value))


def _linear_spec(value: Mapping[str, Any]) -> LinearSpec:
    bands = tuple(Band(*(_whole(number) for number in band)) for band in value["bands"])
    spec = LinearSpec(
        _whole(value["rows"]), _whole(value["cols"]), bands, _whole(value["planes"]), value["bias"] is True
    )
    check_bands(bands, spec.rows)
    return spec

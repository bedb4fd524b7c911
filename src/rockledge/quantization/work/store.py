"""The work directory: finished stages as files, each written whole under its name or not at all.

A run that was killed therefore continues after its last finished file, and ends in the same bytes.
"""

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rockledge.errors import RockledgeError, UsageError
from rockledge.formats.table import Float32
from rockledge.quantization.work.abandoned import REQUEST
from rockledge.quantization.work.candidate import Candidate

_PRICES = "prices.json"
_PARTIAL = ".partial"


@dataclass(frozen=True)
class BandPrices:
    """Rows `start .. start + rows - 1` of a linear with `cols` inputs: its price in nats a token, by
    width."""

    linear: str
    start: int
    rows: int
    cols: int
    prices: dict[int, float]


@dataclass(frozen=True)
class Prices:
    """All that was measured about a model: its bands, what int8 inputs (one plane) cost by the first linear
    that reads them, and sentences about the measuring for the report."""

    bands: tuple[BandPrices, ...]
    activations: dict[str, float]
    notes: tuple[str, ...] = ()


def stored_band(stored: Mapping[str, Any]) -> BandPrices:
    """One band's prices from JSON, where the widths have become strings."""
    prices = {int(bits): price for bits, price in stored["prices"].items()}
    return BandPrices(stored["linear"], stored["start"], stored["rows"], stored["cols"], prices)


class WorkDirectory:
    """What is known about one model so far, under `path`, which is made when missing.

    With `kept`, files reach the disk before they get their names: a power cut loses no more than a kill.
    """

    def __init__(self, path: Path, *, kept: bool = False) -> None:
        self.path = path
        self._kept = kept
        path.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def claimed(self, wanted: Mapping[str, Any]) -> Iterator[None]:
        """Makes the directory this run's own, and removes what a killed run left half written.

        `wanted` is the run's `fingerprint`. UsageError when the directory holds another run or other files,
        or when a run is working in it.
        """
        request = self.path / REQUEST
        if not request.exists():
            if any(path.name != f".{REQUEST}{_PARTIAL}" for path in self.path.iterdir()):
                raise UsageError(f"the work directory {self.path} holds other files; name an empty one")
            with self._complete_file(request) as partial, partial.open("w") as file:
                json.dump(dict(wanted), file, indent=1)
        with request.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise UsageError(f"another run is working in {self.path}; wait until it ends") from error
            self._check(json.load(file), wanted)
            for path in self.path.glob(f".*{_PARTIAL}"):
                path.unlink()
            yield

    def _check(self, found: dict[str, Any], wanted: Mapping[str, Any]) -> None:
        if other := [name for name in wanted if found.get(name) != wanted[name]]:
            raise UsageError(
                f"the work directory {self.path} belongs to another run (not the same {', '.join(other)}); "
                "name another directory, or remove this one"
            )

    @contextmanager
    def new_array(self, name: str, shape: tuple[int, ...]) -> Iterator[npt.NDArray[np.float32]]:
        """A mapped fp32 array to fill, finished when the block is left. Its space is taken at once: writing
        to a mapped file on a full disk would kill the process without a message.
        """
        with self._complete_file(self._array(name)) as partial:
            with partial.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, 4 * prod(shape))
            mapped = np.memmap(partial, np.float32, "r+", shape=shape)
            yield mapped
            if self._kept:
                mapped.flush()

    def array(self, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """A finished array, mapped for reading."""
        return np.memmap(self._array(name), np.float32, "c", shape=shape)

    def has_array(self, name: str) -> bool:
        """Whether an array is finished."""
        return self._array(name).exists()

    def drop_array(self, name: str) -> None:
        """Removes an array if it is there."""
        self._array(name).unlink(missing_ok=True)

    def put_state(self, name: str, numbers: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
        """Replaces a stage's state: `numbers` as JSON can hold them, `arrays` of any type."""
        stored = {"numbers": np.array(json.dumps(dict(numbers))), **arrays}
        with self._complete_file(self._state(name)) as partial, partial.open("wb") as file:
            np.savez(file, **stored)

    def state(self, name: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """The numbers and arrays of a stage's state, None if it has not begun."""
        if not self._state(name).exists():
            return None
        with np.load(self._state(name)) as stored:
            arrays = {key: stored[key] for key in stored.files}
        return json.loads(str(arrays.pop("numbers"))), arrays

    def has_state(self, name: str) -> bool:
        """Whether a stage has begun."""
        return self._state(name).exists()

    def drop_state(self, name: str) -> None:
        """Removes a stage's state if it is there."""
        self._state(name).unlink(missing_ok=True)

    def put_candidates(self, linear: str, candidates: Iterable[Candidate], bias: Float32 | None) -> None:
        """Stores a linear at all its widths, with its (rotated) bias if it has one."""
        arrays: dict[str, Any] = {}
        for candidate in candidates:
            for field in ("codes", "index", "tables", "scale", "prices"):
                value = getattr(candidate, field)
                if value is not None:
                    arrays[f"{candidate.bits}.{field}"] = value
        if bias is not None:
            arrays["bias"] = bias
        with self._complete_file(self._file(linear)) as partial, partial.open("wb") as file:
            np.savez(file, **arrays)

    def candidate(self, linear: str, bits: int) -> Candidate:
        """A stored candidate."""
        with np.load(self._file(linear)) as arrays:
            return Candidate(
                bits=bits,
                codes=arrays[f"{bits}.codes"],
                index=arrays.get(f"{bits}.index"),
                tables=arrays.get(f"{bits}.tables"),
                scale=arrays[f"{bits}.scale"],
                prices=arrays[f"{bits}.prices"],
            )

    def bias(self, linear: str) -> Float32 | None:
        """A linear's bias fp32 [N], None if it has none."""
        with np.load(self._file(linear)) as arrays:
            return np.asarray(arrays["bias"], np.float32) if "bias" in arrays else None

    def put_prices(self, prices: Prices) -> None:
        """Stores the prices: the last thing that measuring does."""
        with self._complete_file(self.path / _PRICES) as partial, partial.open("w") as file:
            json.dump(asdict(prices), file)

    def has_prices(self) -> bool:
        """Whether measuring is finished."""
        return (self.path / _PRICES).exists()

    def prices(self) -> Prices:
        """The stored prices."""
        stored = json.loads((self.path / _PRICES).read_text())
        bands = tuple(stored_band(band) for band in stored["bands"])
        return Prices(bands, stored["activations"], tuple(stored["notes"]))

    @contextmanager
    def _complete_file(self, path: Path) -> Iterator[Path]:
        """A place to write what becomes `path` when it is complete."""
        partial = path.with_name(f".{path.name}{_PARTIAL}")
        with self._explained():
            yield partial
            if self._kept:
                with partial.open("rb+") as file:
                    os.fsync(file.fileno())
            os.replace(partial, path)

    def _array(self, name: str) -> Path:
        return self.path / f"{name}.array"

    def _state(self, name: str) -> Path:
        return self.path / f"{name}.state"

    def _file(self, linear: str) -> Path:
        return self.path / f"{linear}.npz"

    def _explained(self) -> "_DiskErrors":
        return _DiskErrors(self.path)


class _DiskErrors:
    """Replaces an OSError while writing by the sentence that a user sees."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise RockledgeError(
                f"the work directory {self._path} cannot be written ({error.strerror}); free some space "
                "there or name another one"
            ) from error

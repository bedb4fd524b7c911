"""The work directory: finished stages as files, each written whole under its name or not at all."""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rockledge.errors import RockledgeError
from rockledge.formats.table import Float32
from rockledge.quantize.candidates import Candidate

_PRICES = "prices.json"


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
    """All that was measured about a model: its bands, and what int8 inputs (one plane) cost by linear."""

    bands: tuple[BandPrices, ...]
    activations: dict[str, float]


class WorkDirectory:
    """Candidates and prices of one model under `path`, which is made when missing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)

    def scratch(self, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """A mapped fp32 array that lives until `drop_scratch`. Its space is taken at once: writing to a
        mapped file on a full disk would end the process without a word.
        """
        size = 4 * prod(shape)
        with self._explained(), (self.path / f"{name}.scratch").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
        return np.memmap(self.path / f"{name}.scratch", np.float32, "r+", shape=shape)

    def drop_scratch(self, name: str) -> None:
        """Removes a scratch array's file."""
        (self.path / f"{name}.scratch").unlink()

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
        partial = self.path / f".{linear}.partial"
        with self._explained(), partial.open("wb") as file:
            np.savez(file, **arrays)
        os.replace(partial, self._file(linear))

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
        partial = self.path / f".{_PRICES}.partial"
        with self._explained():
            partial.write_text(json.dumps(asdict(prices)))
        os.replace(partial, self.path / _PRICES)

    def prices(self) -> Prices:
        """The stored prices."""
        stored = json.loads((self.path / _PRICES).read_text())
        bands = tuple(
            BandPrices(**{**band, "prices": {int(bits): price for bits, price in band["prices"].items()}})
            for band in stored["bands"]
        )
        return Prices(bands, stored["activations"])

    def _file(self, linear: str) -> Path:
        return self.path / f"{linear}.npz"

    def _explained(self) -> "_Explained":
        return _Explained(self.path)


class _Explained:
    """Turns an OSError while writing into the sentence a user sees."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise RockledgeError(
                f"Could not write to the work directory {self._path} ({error.strerror}); free some space "
                "there or name another work directory."
            ) from error

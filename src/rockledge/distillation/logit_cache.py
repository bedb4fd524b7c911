"""A teacher's top logits on disk, for all sequences of one data set: computed once, read by every run.

A directory holds an entry for each key (teacher, data, tokenizer, k). An entry is `key.json` and shards of
consecutive sequences. For every learnt token a shard has k token ids (uint16 where the vocabulary allows it,
else uint32), then k + 1 log-probabilities as float16, and it ends with the SHA-256 of all that. Which rows
belong to which sequence follows from the labels, so there is no index to go wrong. A shard appears under its
name whole or not at all: a stopped run continues with those that are missing.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rockledge.errors import RockledgeError, UsageError
from rockledge.units import show_size

_VERSION = 1
_KEY = "key.json"
_SUM = 32
_SHARD_BYTES = 32 << 20

Ids = npt.NDArray[np.int32]
Logs = npt.NDArray[np.float16]


@dataclass(frozen=True)
class CacheKey:
    """What the logits depend on: SHA-256 of the teacher's files (and of its adapter), of the sequences and of
    the tokenizer, k, and the type the teacher computes in."""

    teacher: str
    data: str
    tokenizer: str
    k: int
    vocabulary: int
    dtype: str

    @property
    def name(self) -> str:
        """The name of the entry."""
        return hashlib.sha256(repr((_VERSION, self)).encode()).hexdigest()[:24]


class LogitCache:
    """One entry. `rows` are the learnt tokens of every sequence."""

    def __init__(self, directory: Path, key: CacheKey, rows: Sequence[int]) -> None:
        self.path = directory / key.name
        self._key = key
        self._ids = np.dtype("<u2" if key.vocabulary <= 1 << 16 else "<u4")
        self._row = key.k * self._ids.itemsize + (key.k + 1) * 2
        self._rows = list(rows)
        self._shards = _shards(self._rows, self._row)
        self._starts = {s: (n, shard) for n, shard in enumerate(self._shards) for s in shard}
        self._open: dict[int, tuple[Ids, Logs]] = {}

    @property
    def bytes(self) -> int:
        """What the entry takes when it is complete."""
        return sum(self._rows) * self._row + len(self._shards) * _SUM

    def check_room(self, most: int) -> None:
        """Raises UsageError where the entry would be larger than `most` bytes, and RockledgeError where the
        disk has no room for what is missing of it."""
        if self.bytes > most:
            raise UsageError(
                f"the teacher's logits take {show_size(self.bytes)}, more than the {show_size(most)} that "
                "--cache-bytes allows; raise that, choose a smaller --top-k or --tokens, or leave out "
                "--cache-logits"
            )
        directory = self.path.parent
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RockledgeError(
                f"{directory} cannot be written ({(error.strerror or str(error)).lower()}); choose another "
                "place for --cache-logits"
            ) from error
        there = sum(file.stat().st_size for file in self.path.glob("*.bin"))
        free, needed = shutil.disk_usage(self.path).free, max(0, self.bytes - there)
        if needed > free:
            raise RockledgeError(
                f"the teacher's logits need {show_size(needed, enough=True)} of disk in {directory}, but "
                f"{show_size(free)} are free; free some, or choose another place or a smaller --top-k"
            )

    def missing(self, process: int = 0, processes: int = 1) -> list[range]:
        """The sequences of shards that are not there, or whose bytes are not those that were written; of
        several processes each has its own, whatever the others have done yet."""
        own = range(process, len(self._shards), processes)
        for number in own:
            for left in self.path.glob(f"{self._file(number).name}.partial-*"):
                left.unlink(missing_ok=True)
        return [self._shards[number] for number in own if not self._valid(number)]

    def write(self, shard: range, parts: Iterable[tuple[Ids, Logs]]) -> None:
        """Writes a shard: (ids, logs) of its sequences, in order. RockledgeError where the disk is full."""
        ids, logs = zip(*parts, strict=True)
        number = self._starts[shard[0]][0]
        body = np.concatenate(ids).astype(self._ids).tobytes()
        body += np.concatenate(logs).astype("<f2").tobytes()
        target = self._file(number)
        partial = target.with_name(f"{target.name}.partial-{os.getpid()}")
        try:
            if not (self.path / _KEY).is_file():
                (self.path / _KEY).write_text(json.dumps(vars(self._key), indent=2) + "\n", encoding="utf-8")
            with open(partial, "wb") as file:
                file.write(body + hashlib.sha256(body).digest())
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, target)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise RockledgeError(
                f"the teacher's logits cannot be written to {self.path} "
                f"({(error.strerror or str(error)).lower()}); what is there is kept: free some space and "
                "give the same command again"
            ) from error

    def read(self, sequence: int) -> tuple[Ids, Logs]:
        """(ids int32 [N, k], logs float16 [N, k + 1]) of a sequence; RockledgeError where its shard is
        gone."""
        number, shard = self._starts[sequence]
        if number not in self._open:
            self._open[number] = self._mapped(number)
        ids, logs = self._open[number]
        begin = sum(self._rows[shard[0] : sequence])
        end = begin + self._rows[sequence]
        return ids[begin:end].astype(np.int32), np.array(logs[begin:end])

    def _mapped(self, number: int) -> tuple[Ids, Logs]:
        rows, k = sum(self._rows[s] for s in self._shards[number]), self._key.k
        try:
            data = np.memmap(self._file(number), np.uint8, "r")
        except (OSError, ValueError) as error:
            raise RockledgeError(f"{self._file(number)} is gone; give the same command again") from error
        split = rows * k * self._ids.itemsize
        ids = data[:split].view(self._ids).reshape(rows, k)
        return ids, data[split : rows * self._row].view("<f2").reshape(rows, k + 1)

    def _file(self, number: int) -> Path:
        return self.path / f"{number:06d}.bin"

    def _valid(self, number: int) -> bool:
        size = sum(self._rows[s] for s in self._shards[number]) * self._row
        try:
            data = self._file(number).read_bytes()
        except OSError:
            return False
        return len(data) == size + _SUM and hashlib.sha256(data[:size]).digest() == data[size:]


def _shards(rows: Sequence[int], row_bytes: int) -> list[range]:
    """Sequences cut into runs of about the bytes of a shard."""
    found, first, held = [], 0, 0
    for number, count in enumerate(rows):
        held += count * row_bytes
        if held >= _SHARD_BYTES or number == len(rows) - 1:
            found.append(range(first, number + 1))
            first, held = number + 1, 0
    return found

"""The cache of logits: what is written is read, damage is noticed, and it keeps within its bounds."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rockledge.distillation import logit_cache
from rockledge.distillation.logit_cache import CacheKey, LogitCache
from rockledge.errors import RockledgeError, UsageError

ROWS = [3, 0, 5, 2, 4]


def key(vocabulary: int = 300, k: int = 4, teacher: str = "t") -> CacheKey:
    return CacheKey(teacher, "d", "x", k, vocabulary, "float32")


def parts(shard: range, vocabulary: int = 300, k: int = 4) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for sequence in shard:
        generator = np.random.default_rng(sequence)
        ids = generator.integers(0, vocabulary, (ROWS[sequence], k)).astype(np.int32)
        yield ids, generator.normal(size=(ROWS[sequence], k + 1)).astype(np.float16)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logit_cache, "_SHARD_BYTES", 100)


@pytest.mark.parametrize("vocabulary", [300, 1 << 16, 128256])
def test_what_is_written_is_read(vocabulary: int, tmp_path: Path) -> None:
    cache = LogitCache(tmp_path, key(vocabulary), ROWS)
    cache.check_room(1 << 20)
    missing = cache.missing()
    assert [s for shard in missing for s in shard] == list(range(len(ROWS)))
    assert len(missing) > 1
    for shard in missing:
        cache.write(shard, parts(shard, vocabulary))
    again = LogitCache(tmp_path, key(vocabulary), ROWS)
    assert again.missing() == []
    for sequence, (ids, logs) in enumerate(parts(range(len(ROWS)), vocabulary)):
        found = again.read(sequence)
        np.testing.assert_array_equal(found[0], ids)
        np.testing.assert_array_equal(found[1], logs)
    assert again.bytes == sum(file.stat().st_size for file in again.path.glob("*.bin"))


def test_a_stopped_cache_goes_on_and_damage_is_written_again(tmp_path: Path) -> None:
    cache = LogitCache(tmp_path, key(), ROWS)
    cache.check_room(1 << 20)
    first, *rest = cache.missing()
    cache.write(first, parts(first))
    assert LogitCache(tmp_path, key(), ROWS).missing() == rest
    for shard in rest:
        cache.write(shard, parts(shard))
    file = sorted(cache.path.glob("*.bin"))[0]
    data = bytearray(file.read_bytes())
    data[7] ^= 1
    file.write_bytes(data)
    assert LogitCache(tmp_path, key(), ROWS).missing() == [first]
    file.write_bytes(data[:-1])
    assert LogitCache(tmp_path, key(), ROWS).missing() == [first]


def test_another_teacher_or_k_is_another_entry(tmp_path: Path) -> None:
    names = {LogitCache(tmp_path, k, ROWS).path for k in (key(), key(k=5), key(teacher="u"), key(400))}
    assert len(names) == 4


def test_it_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = LogitCache(tmp_path, key(), ROWS)
    with pytest.raises(UsageError, match="--cache-bytes"):
        cache.check_room(cache.bytes - 1)
    monkeypatch.setattr(logit_cache.shutil, "disk_usage", lambda path: Usage())
    with pytest.raises(RockledgeError, match="10 B are free"):
        cache.check_room(cache.bytes)


class Usage:
    """A disk with ten bytes left."""

    free = 10


def test_a_full_disk_costs_no_finished_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = LogitCache(tmp_path, key(), ROWS)
    cache.check_room(1 << 20)
    first, second, *_ = cache.missing()
    cache.write(first, parts(first))

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(logit_cache.os, "fsync", full)
    with pytest.raises(RockledgeError, match="no space left on device"):
        cache.write(second, parts(second))
    assert first not in LogitCache(tmp_path, key(), ROWS).missing()
    assert not list(cache.path.glob("*.partial*"))

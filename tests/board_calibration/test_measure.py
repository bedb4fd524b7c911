"""Probes really run: every one on this machine, once and small. How long they take is nobody's business."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from rockledge.artifact.publish import UnwritableError
from rockledge.board.facts_file import text
from rockledge.board_calibration import calibrate as whole
from rockledge.board_calibration import probes as p
from rockledge.board_calibration.measure import Weights, measured
from rockledge.board_calibration.weights import bands, random_weights, streamed_bytes

SMALL = 18 << 20


@pytest.mark.parametrize("threads", [1, 2])
def test_every_probe_takes_some_time(tmp_path: Path, threads: int) -> None:
    wanted = set(p.probes(threads, SMALL))
    kept = {probe for probe in wanted if isinstance(probe, p.EngineStep) or probe.threads == threads}
    said = []
    found = measured(
        kept,
        threads=threads,
        weights=Weights(SMALL, tmp_path, small_pages=threads == 1),
        repeats=1,
        advance=lambda *numbers: said.append(numbers),
    )
    assert set(found.seconds) == kept
    assert found.huge_share is None or 0 <= found.huge_share <= 1
    assert said == [(1, 1)]
    for probe, seconds in found.seconds.items():
        assert all(one >= 0 if isinstance(probe, p.EngineStep) else one > 0 for one in seconds), probe
    assert list(tmp_path.iterdir()) == []


def test_weights_are_views_of_the_file_where_streams_may_begin(tmp_path: Path) -> None:
    with random_weights(SMALL, tmp_path / "new") as data:
        assert data.size == SMALL
        assert len(np.unique(data[:4096])) > 200
        for bits in (2, 3, 4, 8):
            listed = bands(data, bits, 64, 960, 5000)
            for band in listed:
                streams = [band.codes] + ([] if band.index is None else [band.index])
                assert all(np.shares_memory(stream, data) for stream in streams)
                assert all(stream.ctypes.data % 64 == 0 for stream in streams)
            places = [band.codes.ctypes.data for band in listed]
            assert len(set(places)) > 1
            assert places[0] in places[1:]  # from the beginning again


def test_as_much_is_streamed_as_no_cache_holds() -> None:
    mib = 1 << 20
    assert streamed_bytes(3 * mib, None) == 96 * mib
    assert streamed_bytes(16 * mib, None) == 256 * mib
    assert streamed_bytes(1024 * mib, None) == 512 * mib
    assert streamed_bytes(16 * mib, 300 * mib) == 100 * mib


def test_a_folder_that_takes_no_file_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UnwritableError), random_weights(SMALL, tmp_path / "file"):
        pass


def test_a_calibration_is_a_file_with_every_constant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole, "weights_bytes", lambda cores: SMALL)
    monkeypatch.setattr(whole, "default_cores", lambda: (min(whole.os.sched_getaffinity(0)),))
    done = whole.calibrate(tmp_path, repeats=1)
    content = text(done.facts)
    body = json.loads(content)
    assert set(whole.HOW) - set(body["facts"]) == {
        "cpu_read_bandwidth_2_cores", "cpu_read_bandwidth_4_cores"
    }  # fmt: skip
    for name, one in body["facts"].items():
        assert one["how"], name
        assert one["unit"], name
        assert one["spread"][0] <= one["value"] <= one["spread"][1], name
    assert body["facts"]["cpu_cores"]["value"] == body["threads"] == 1
    assert re.fullmatch(r"[0-9.]+(-[a-z0-9]+)*|unknown", body["kernel"])
    assert bool(done.no_npu) == (done.facts.npu is None)

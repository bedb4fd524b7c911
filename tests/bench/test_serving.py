"""The serving table: measures of a toy server, goals from known figures, a client that loses nothing."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.serving import __main__ as serving
from bench.serving import disturbances, measures
from bench.serving.amounts import QUICK, quantile
from bench.serving.client import Answer, RefusedError, complete, connection
from bench.serving.disturbances import gaps_within
from bench.serving.prompts import Prompts, alice_as_read_by
from bench.serving.rows import BEFORE, GOALS, ROWS, Goal, Measure
from bench.serving.servers import OURS, THEIRS, Server, Size, running
from rockledge.synth import SHAPES, synth_artifact

TEXT = "the quick brown fox jumps over a lazy dog and runs away from it " * 30


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with room for the quick amounts of every measure."""
    shape = replace(SHAPES["toy"], context=2048)
    return synth_artifact(shape, tmp_path_factory.mktemp("models") / "toy", seed=3)


@pytest.fixture(scope="module")
def server(toy: Path) -> Iterator[Server]:
    with running(OURS, toy, Size(4, 512), 1) as found:
        yield found


@pytest.fixture
def prompts() -> Prompts:
    return Prompts([3 + i % 250 for i in range(4000)], TEXT.split())


def test_streams_count_every_token_and_time(server: Server, prompts: Prompts) -> None:
    found = asyncio.run(measures.streams(server, prompts, replace(QUICK, rounds=2), 3))
    assert found["tok_s"] > 0
    assert 0 < found["ttft_p50_ms"] <= found["ttft_p99_ms"]
    assert found["gap_p50_ms"] <= found["gap_p99_ms"]


@pytest.mark.parametrize(
    "measure, ratio",
    [
        (measures.shared_prefix, "later_over_first"),
        (measures.conversation, "turn_5_over_fresh"),
        (measures.longer_prompts, "turn_5_over_fresh"),
        (disturbances.interruption, "gap_p99_over_undisturbed"),
        (measures.single_tokens, "request_p50_ms"),
        (disturbances.large_bodies, "health_p99_ms"),
        (disturbances.crowd, "beside_ms"),
    ],
)
def test_measures_have_figures(server: Server, prompts: Prompts, measure: Measure, ratio: str) -> None:
    found = asyncio.run(measure(server, prompts, QUICK))
    assert found[ratio] > 0


def test_a_refused_request_is_said(server: Server) -> None:
    with pytest.raises(RefusedError, match="400"):
        asyncio.run(complete(server.url, [1 << 30], 4))


def test_rows_are_kept_beside_those_that_were_there(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text, out = tmp_path / "text", tmp_path / "new" / "serving.json"
    text.write_text(TEXT)
    monkeypatch.setattr("bench.serving.prompts.alice", lambda: text)
    assert len(alice_as_read_by(toy).ids) == len(TEXT)
    command = ["--only", "single_tokens", "--engines", OURS, "--runs", "1", "--threads", "1", "--quick"]
    for more in (["--as", BEFORE], []):
        assert serving.main([*command, "--out", str(out), *more], lambda engine, shape: toy) == 0
    kept = json.loads(out.read_text())["rows"]["single_tokens 135m"]
    assert list(kept) == [BEFORE, OURS]
    assert kept[OURS]["runs"][0]["model_ms"] == kept[OURS]["model_ms"] > 0
    assert "beyond_model_ms at most 8: " in capsys.readouterr().out
    monkeypatch.setenv("ROCKLEDGE_LLAMA_CPP", str(tmp_path))
    assert serving.main([*command[:2], "--out", str(out)], lambda engine, shape: toy) == 1
    assert "run `make llama-cpp`" in capsys.readouterr().err


def test_goals_are_judged_by_the_figures_they_name() -> None:
    twice = Goal("streams_8", "tok_s", 2.0, over=THEIRS, at_most=False)
    assert twice.met({OURS: {"tok_s": 20.0}, THEIRS: {"tok_s": 10.0}}) is True
    assert twice.met({OURS: {"tok_s": 19.0}, THEIRS: {"tok_s": 10.0}}) is False
    assert twice.met({OURS: {"tok_s": 19.0}, THEIRS: {"failed": "it was not there"}}) is None
    assert Goal("crowd", "x", 2.0).met({OURS: {"x": 2.1}}) is False
    assert {goal.row for goal in GOALS} == ROWS.keys()


def test_the_picture_has_rows_that_failed_too(tmp_path: Path) -> None:
    rows: dict[str, Any] = {"streams_1 1b": {OURS: {"tok_s": 3.0}, THEIRS: {"failed": "no"}}}
    serving.write(rows, tmp_path / "serving.json")
    assert (tmp_path / "serving.png").stat().st_size > 10_000


def test_gaps_within_a_time() -> None:
    answer = Answer(0.0, [0.0, 1.0, 2.0, 5.0, 6.0])
    assert gaps_within(answer, 0.5, 2.0) == [1.0, 1.0]
    assert gaps_within(answer, 2.0, 5.5) == [3.0]
    assert gaps_within(answer, 2.0, 4.5) == [2.5]  # it stands still
    answer.ended = 6.1
    assert gaps_within(answer, 5.5, 9.0) == [1.0]
    assert quantile(range(1, 101), 0.99) == 99
    assert quantile([5.0], 0.99) == quantile([5.0], 0.5) == 5.0


def test_a_client_reads_events_cut_anywhere_and_connects_again() -> None:
    """A server that sends a byte at a time and closes the connection after every answer."""
    event = b'data: {"choices": [{"text": "\xc3\xa9"}]}\n\n'
    usage = b'data: {"choices": [], "usage": {"completion_tokens": 2}}\n\ndata: [DONE]\n\n'
    connections = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for byte in event * 2 + usage:
            writer.write(b"1\r\n%c\r\n" % byte)
        writer.write(b"0\r\n\r\n")
        writer.close()

    async def ask() -> list[Answer]:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, connection(f"http://127.0.0.1:{port}") as one:
            return [await one.stream("/v1/completions", {}) for _ in range(2)]

    for found in asyncio.run(ask()):
        assert found.text == "éé"
        assert len(found.arrivals) == 2
        assert found.usage == {"completion_tokens": 2}
    assert connections == 2

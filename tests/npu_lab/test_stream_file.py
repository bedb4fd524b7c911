"""Streams come out of a file as they were put in, and what is not a stream is refused by name."""

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rockledge.errors import NpuError, RockledgeError, UsageError
from rockledge_npu_lab.stream_file import read_streams

words_lists = st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=20)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("streams") / "stream"


@given(words_lists)
def test_raw_words_come_back(file, words):
    data = struct.pack(f"<{len(words)}Q", *words)
    file.write_bytes(data)
    if data.lstrip()[:1] in (b"{", b"[") and b"\0" not in data:
        with pytest.raises(NpuError):
            read_streams(file)
    else:
        (stream,) = read_streams(file)
        assert stream.words == tuple(words)


@given(st.lists(st.lists(words_lists, min_size=1, max_size=3), min_size=1, max_size=3))
def test_cases_come_back_with_their_tasks_as_one_stream(file, cases):
    body = {
        "cases": [
            {"id": f"c{i}", "tasks": [{"words": [f"{word:016x}" for word in task]} for task in tasks]}
            for i, tasks in enumerate(cases)
        ]
    }
    file.write_text(json.dumps(body if len(cases) % 2 else body["cases"]))
    assert [(s.name, s.words) for s in read_streams(file)] == [
        (f"c{i}", tuple(word for task in tasks for word in task)) for i, tasks in enumerate(cases)
    ]


def test_one_case_may_stand_alone(file):
    file.write_text('  {"tasks": [{"words": ["00810000000d0008"]}]}')
    (stream,) = read_streams(file)
    assert (stream.name, stream.words) == ("case 0", (0x00810000000D0008,))


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "is empty"),
        ("1234567", "expected a multiple of 8"),
        ("{", "begins like JSON but is not valid"),
        ('{"cases": []}', "has no cases"),
        ("[]", "has no cases"),
        ('{"cases": 3}', "has no cases"),
        ('{"cases": [3]}', "case 0 is int"),
        ('{"id": "x"}', "x has no `tasks`"),
        ('{"tasks": [3]}', "has no `tasks`"),
        ('{"tasks": [{}]}', "a task without `words`"),
        ('{"tasks": [{"words": ["12"]}]}', "word 0 is '12', expected sixteen"),
        ('{"tasks": [{"words": [12]}]}', "word 0 is 12"),
        ('{"tasks": []}', "has no words"),
    ],
)
def test_what_is_not_a_stream_is_refused(file, text, words):
    file.write_text(text)
    with pytest.raises(NpuError, match=words):
        read_streams(file)


def test_a_missing_file_is_bad_usage(tmp_path):
    with pytest.raises(UsageError, match="there is no file"):
        read_streams(tmp_path / "nothing")


@given(st.binary(min_size=1, max_size=200))
def test_any_bytes_are_streams_or_refused(file, data):
    file.write_bytes(data)
    try:
        streams = read_streams(file)
    except RockledgeError:
        return
    assert all(stream.words for stream in streams)

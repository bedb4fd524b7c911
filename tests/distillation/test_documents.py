"""Documents: what is read, what is left out, and what is held out."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rockledge.distillation.documents import Document, held_out, read_documents
from rockledge.errors import UsageError


def test_empty_and_repeated_documents_are_left_out_with_their_lines(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    lines = [
        {"text": "one"},
        {"text": "  \n"},
        {"text": "two"},
        {"messages": turns},
        {"text": " one "},
        {"messages": turns},
        {"messages": []},
    ]
    file = tmp_path / "a.jsonl"
    file.write_text("\n\n".join(map(json.dumps, lines)), encoding="utf-8")
    read = read_documents([file])
    assert [d.text or d.messages[1]["content"] for d in read.documents] == ["one", "two", "hello"]
    assert read.notes == (
        "a.jsonl: lines 3, 13 left out, empty.",
        "a.jsonl: lines 9, 11 left out, said before.",
    )


def test_a_text_file_is_one_document_and_files_are_joined(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\ufeffone\ntwo\n", encoding="utf-8")
    (tmp_path / "b.md").write_text("one\ntwo\n", encoding="utf-8")
    read = read_documents([tmp_path / "a.txt", tmp_path / "b.md"])
    assert [d.text for d in read.documents] == ["one\ntwo\n"]
    assert "said before" in read.notes[0]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"text": "a"}\n{"text": ', "line 2 of x.jsonl is not JSON"),
        ('{"prompt": "a"}', 'line 1 of x.jsonl has neither "text" nor "messages"'),
        ('{"messages": ["a"]}', "not an object with"),
        ('{"text": "a", "messages": [{"role": "assistant", "content": "b"}]}', 'both "text" and "messages"'),
        ('["a"]', "line 1 of x.jsonl is not an object"),
        ('{"text": 5, "messages": [{"role": "assistant", "content": "b"}]}', "neither"),
        ('{"messages": [{"role": "user", "content": "a"}], "tools": "f"}', "expected a list"),
        ('{"text": " "}', "holds no document"),
        ("", "holds no document"),
    ],
)
def test_bad_lines_are_named(content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match=said):
        read_documents([tmp_path / "x.jsonl"])


def test_files_that_are_not_text_are_said(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="UTF-8"):
        read_documents([tmp_path / "x.txt"])
    with pytest.raises(UsageError, match="no such file"):
        read_documents([tmp_path / "missing.txt"])


@given(
    st.lists(
        st.text(min_size=1).filter(str.strip),
        min_size=2,
        max_size=40,
        unique_by=lambda t: " ".join(t.split()),
    ),
    st.randoms(),
    st.floats(0.01, 0.5),
)
def test_what_is_held_out_does_not_depend_on_the_order(
    texts: list[str], random: object, share: float
) -> None:
    documents = [Document("", text) for text in texts]
    learn, kept = held_out(documents, share)
    assert kept
    assert learn
    assert {d.text for d in learn} | {d.text for d in kept} == set(texts)
    assert not {d.digest for d in learn} & {d.digest for d in kept}
    random.shuffle(documents)  # type: ignore[attr-defined]
    assert {d.text for d in held_out(documents, share)[1]} == {d.text for d in kept}


def test_json_lines_are_known_by_any_spelling_of_their_ending(tmp_path: Path) -> None:
    for name in ("x.JSONL", "x.ndjson"):
        (tmp_path / name).write_text('{"text": "a"}\n{"text": "b"}\n', encoding="utf-8")
        assert [document.text for document in read_documents([tmp_path / name]).documents] == ["a", "b"]
    (tmp_path / "x.json").write_text('[{"text": "a"}]', encoding="utf-8")
    with pytest.raises(UsageError, match="is JSON, expected text or JSON lines"):
        read_documents([tmp_path / "x.json"])

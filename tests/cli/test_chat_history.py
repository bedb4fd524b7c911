"""What was typed, on disk."""

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rockledge.cli.chat_history import KEPT, ChatHistory


@given(st.lists(st.text(max_size=20), max_size=10))
def test_entries_come_back_newest_first(tmp_path_factory: pytest.TempPathFactory, entries: list[str]) -> None:
    path = tmp_path_factory.getbasetemp() / "history"
    path.unlink(missing_ok=True)
    history = ChatHistory(path)
    for entry in entries:
        history.append_string(entry)
    distinct = [entry for i, entry in enumerate(entries) if entries[i - 1 : i] != [entry]]
    assert list(ChatHistory(path).load_history_strings()) == distinct[::-1]


def test_a_file_that_others_could_read_is_closed_and_damage_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "history"
    path.write_bytes(b'"one"\n"tw\n\xff\n3\n"four\\nlines"\n')
    path.chmod(0o644)
    history = ChatHistory(path)
    assert list(history.load_history_strings()) == ["four\nlines", "one"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_long_file_is_cut_to_its_newest_entries(tmp_path: Path) -> None:
    path = tmp_path / "history"
    path.write_text("".join(f'"{number}"\n' for number in range(2 * KEPT + 1)))
    assert next(iter(ChatHistory(path).load_history_strings())) == str(2 * KEPT)
    assert path.read_text().split() == [f'"{number}"' for number in range(KEPT + 1, 2 * KEPT + 1)]


def test_a_place_that_cannot_be_written_is_named_and_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    history = ChatHistory(tmp_path / "file" / "history")
    assert history.failure
    history.append_string("still here")
    assert history.get_strings() == ["still here"]

"""Name, place on the Hub and licence of a source, from model cards and GGUF metadata as published."""

from pathlib import Path

import gguf
import pytest

from rockledge.model.source import Licence, source_hub_id, source_licence, source_name

CARD = """---
license: {}
license_name: gemma
license_link: https://ai.google.dev/gemma/terms
base_model: org/other
---
# A model
"""


def test_a_snapshot_is_called_by_its_repository(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--Some-Org--a--model" / "snapshots" / ("0" * 40)
    (snapshot / "folder").mkdir(parents=True)
    file = snapshot / "folder" / "a.Q8_0.gguf"
    blob = tmp_path / "blob"
    blob.touch()
    file.symlink_to(blob)
    assert source_hub_id(snapshot) == source_hub_id(file) == "Some-Org/a--model"
    assert source_name(snapshot) == "a--model"
    assert source_name(file) == "a.Q8_0"
    assert source_hub_id(tmp_path) is None
    assert source_name(tmp_path) == tmp_path.name


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        (CARD.format("apache-2.0"), "apache-2.0"),
        (CARD.format("[a, list]"), None),
        ("# No front matter\n", None),
        ("---\nlicense: mit\n", None),  # never closed
        ("---\n: : [\n---\n", None),
        ("", None),
    ],
)
def test_the_licence_of_a_directory(tmp_path: Path, card: str, licence: str | None) -> None:
    (tmp_path / "README.md").write_text(card)
    found = source_licence(tmp_path)
    assert (None if found is None else found.id) == licence


def test_other_licences_keep_their_name_and_link(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(CARD.format("other"))
    assert source_licence(tmp_path) == Licence("other", "gemma", "https://ai.google.dev/gemma/terms")


def test_the_licence_of_a_gguf_file(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
    writer.add_license("mit")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    (tmp_path / "README.md").write_text(CARD.format("apache-2.0"))  # of whatever else is in that folder
    assert source_licence(tmp_path / "a.gguf") == Licence("mit")
    (tmp_path / "b.gguf").write_bytes(b"GGUF")
    assert source_licence(tmp_path / "b.gguf") is None

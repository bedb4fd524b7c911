"""What llama-quantize is asked for, seen by a stand-in that writes down its arguments."""

from pathlib import Path

import gguf
import numpy as np
import pytest

from bench.llama_files import STANDARD, VARIANTS, LlamaFile, content_digest, importance_matrix, make

RECORDER = """#!/bin/sh
printf '%s\\n' "$@" > "$(dirname "$0")/$(basename "$0").log"
previous=
for word in "$@"; do
  case "$word" in *.partial|*.partial.gguf) echo made > "$word";; esac
done
"""


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with stand-ins; NAME.log holds the last arguments of each."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("llama-quantize", "llama-imatrix"):
        (folder / name).write_text(RECORDER)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("ROCKLEDGE_LLAMA_CPP", str(folder))
    return folder


def words(file: LlamaFile, folder: Path, hidden: int) -> list[str]:
    target = folder / "out.gguf"
    make(file, Path("float.gguf"), Path("matrix"), target, hidden, 2)
    assert target.read_text() == "made\n"
    return (folder / "llama-quantize.log").read_text().split("\n")[:-1]


def test_ordinary_files_take_the_matrix_and_nothing_else(asked: Path) -> None:
    expected = ["--imatrix", "matrix", "float.gguf", str(asked / "out.partial"), "Q4_K_M", "2"]
    assert words(STANDARD[2], asked, 576) == expected


def test_embeddings_fall_back_where_rows_are_no_multiple_of_256(asked: Path) -> None:
    file = LlamaFile("x", "Q4_K_M", embedding="q4_K")
    wide = words(file, asked, 1536)
    assert wide[2:6] == ["--token-embedding-type", "q4_K", "--output-tensor-type", "q4_K"]
    assert words(file, asked, 576)[2:6] == ["--token-embedding-type", "q5_0", "--output-tensor-type", "q5_0"]
    assert words(LlamaFile("x", "Q4_0", embedding="q4_0"), asked, 576)[3] == "q4_0"


def test_pure_files(asked: Path) -> None:
    assert "--pure" in words(LlamaFile("x", "Q4_0", pure=True), asked, 576)


def test_the_types_that_were_asked_for_are_there() -> None:
    names = [file.name for file in STANDARD]
    assert names == ["Q8_0", "Q5_K_M", "Q4_K_M", "Q4_K_S", "IQ4_XS", "Q4_0", "Q3_K_M"]
    assert all(file.pure != (file.embedding is not None) for file in VARIANTS)
    every = [file.name for file in STANDARD + VARIANTS]
    assert len(set(every)) == len(every)


def test_the_importance_matrix_is_made_once(asked: Path, tmp_path: Path) -> None:
    target = tmp_path / "m-imatrix.gguf"
    assert importance_matrix(Path("float.gguf"), Path("text"), target, 2) == target
    assert "--process-output" in (asked / "llama-imatrix.log").read_text()
    (asked / "llama-imatrix.log").unlink()
    importance_matrix(Path("float.gguf"), Path("text"), target, 2)
    assert not (asked / "llama-imatrix.log").exists()


def test_content_ignores_metadata_and_sees_one_weight(tmp_path: Path) -> None:
    def file(name: str, note: str, value: float) -> str:
        writer = gguf.GGUFWriter(tmp_path / name, "llama")
        writer.add_description(note)
        writer.add_tensor("a", np.array([1, 2, value], np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return content_digest(tmp_path / name)

    assert file("1", "one", 3) == file("2", "other", 3) != file("3", "one", 4)

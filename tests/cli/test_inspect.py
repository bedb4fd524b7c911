"""`rockledge inspect` on artifacts and checkpoints, whole and damaged."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.model.oracle import CASES

Run = Callable[..., Any]


def test_an_artifact_is_described_by_its_parts(rockledge: Run, artifact: Path) -> None:
    done = rockledge("inspect", artifact, "--verify", "--json")
    assert done.code == 0
    body = done.json
    assert body["kind"] == "artifact"
    assert (body["layers"], body["hidden"], body["vocab"], body["tied"]) == (2, 96, 300, True)
    parts = {part["part"]: part for part in body["parts"]}
    assert set(parts) == {
        *("embed", "attn.q", "attn.k", "attn.v", "attn.o", "ffn.gate", "ffn.up", "ffn.down")
    }
    assert parts["ffn.up"]["weights"] == 2 * 208 * 96
    for part in parts.values():
        assert sum(part["weights_by_bits"].values()) == part["weights"]
        assert min(map(int, part["weights_by_bits"])) < part["bits_per_weight"] < 9
    size = (artifact / "model.safetensors").stat().st_size
    assert 0 < body["size_mb"] <= size / 1e6
    assert body["bits_per_weight"] == pytest.approx(8e6 * body["size_mb"] / body["parameters"], rel=0.01)


def test_people_see_the_same(rockledge: Run, artifact: Path) -> None:
    done = rockledge("inspect", artifact)
    assert "ffn.gate" in done.out
    assert "bits a weight" in done.out
    assert "checksum" not in done.out


def test_a_flipped_bit_is_found_by_verify_and_named(rockledge: Run, artifact: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(artifact, copy)
    file = copy / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-70] ^= 4
    file.write_bytes(data)
    assert rockledge("inspect", copy).code == 0
    done = rockledge("inspect", copy, "--verify", "--json")
    assert done.code == 1
    assert "checksum" in done.json["error"]


def test_a_checkpoint_is_described(rockledge: Run, checkpoint: Path) -> None:
    body = rockledge("inspect", checkpoint, "--verify", "--json").json
    assert body["kind"] == "checkpoint"
    assert "bfloat16" in body["stored"]
    assert body["bits_per_weight"] == pytest.approx(16, rel=0.05)
    assert rockledge("inspect", checkpoint).out.startswith(str(checkpoint))


def test_nothing_there_is_one_sentence(rockledge: Run, tmp_path: Path) -> None:
    done = rockledge("inspect", tmp_path / "nowhere")
    assert done.code == 1
    assert "does not exist" in done.err


def test_guesses_are_said(rockledge: Run) -> None:
    done = rockledge("inspect", CASES / "f8_nopre.gguf")
    assert done.code == 0
    assert "Note: The file does not say how text is split into words" in done.out
    (note,) = rockledge("inspect", CASES / "f8_nopre.gguf", "--json").json["notes"]
    assert 'the rule "default" was guessed' in note
    assert rockledge("inspect", CASES / "f8_pre.gguf", "--json").json["notes"] == []


def test_a_checkpoint_whose_files_disagree_is_one_sentence(rockledge: Run) -> None:
    for command in (("inspect",), ("quantize", "-o", "nowhere")):
        done = rockledge(*command, CASES / "f5_vocab")
        assert done.code == 1
        assert done.err.count("\n") == 1
        assert "use the tokenizer that belongs to these weights" in done.err

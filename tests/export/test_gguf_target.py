"""What `--to gguf` writes, read by the gguf package and by our reader, whose tests compare it with
transformers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from tests.export.artifacts import TOKENS, Stored, converted, float_logits, held, without_head

from rockledge.artifact import open_artifact
from rockledge.errors import UsageError
from rockledge.export.gguf_metadata import described
from rockledge.export.gguf_types import kind_of, rounded
from rockledge.export.plain import PlainModel
from rockledge.export.request import ExportRequest
from rockledge.export.targets import export
from rockledge.model.gguf_reader import GgufCheckpoint
from rockledge.quantization.float_model.reference_logits import ReferenceLogits

# What llama.cpp has no place for in the forms is changed into what its architectures have.
FITTING: dict[str, dict[str, Any]] = {
    "gemma2": {"attention_scale": 0.0},
    "gemma3": {"attention_scale": 0.0},
    "smollm3": {"unturned": (3,)},
    "llama-biases": {},
    "olmo2": {},
    "granite": {},
    "ministral3": {},
    "phi3": {"windows": ()},
}


@pytest.mark.parametrize("name", FITTING)
def test_the_file_has_the_artifacts_logits(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = held(name, **FITTING[name])
    path = converted(found, tmp_path / "artifact")
    export(path, tmp_path / "gguf", "gguf", ExportRequest("f32"))
    file = tmp_path / "gguf" / "model.gguf"
    logits = ReferenceLogits(GgufCheckpoint.open(file), [TOKENS])(TOKENS)
    expected = float_logits(found, path, TOKENS, monkeypatch)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
    names = {tensor.name for tensor in gguf.GGUFReader(file).tensors}
    architecture = next(
        key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == described(found.config).architecture
    )
    known = {gguf.TENSOR_NAMES[key] for key in gguf.MODEL_TENSORS[architecture]}
    for stored in names - {"rope_freqs.weight"}:
        stem = stored.rsplit(".", 1)[0]
        layer = next((part for part in stem.split(".") if part.isdigit()), "")
        assert stem in {one.format(bid=layer) for one in known}, stored


def test_a_tied_head_is_the_embedding_again(tmp_path: Path) -> None:
    found = without_head(held("llama-biases"))
    path = converted(found, tmp_path / "artifact")
    written = export(path, tmp_path / "gguf", "gguf", ExportRequest(tokens=128))
    checkpoint = GgufCheckpoint.open(tmp_path / "gguf" / "model.gguf")
    assert checkpoint.config.tied
    cost = written.report["cost"]
    assert set(cost) == {*written.report["matrices"], "all of them"}
    alone = sum(cost[kind]["kl_mean_nats"] for kind in written.report["matrices"])
    assert 0 < cost["all of them"]["kl_mean_nats"] < 3 * alone


def test_the_context_is_cut_to_where_windows_hide_nothing(tmp_path: Path) -> None:
    found = held("phi3")
    path = converted(found, tmp_path / "artifact")
    written = export(path, tmp_path / "gguf", "gguf", ExportRequest("f32"))
    assert written.report["context"] == 12
    assert any("12 tokens" in note for note in written.notes)


@pytest.mark.parametrize(
    "name, changes, said",
    [
        ("gemma2", {}, "attention_scale is 0.2236"),
        ("smollm3", {}, "unturned"),
        ("llama-biases", {"family": "qwen3", "qk_norm": True}, "o_bias"),
        ("llama-biases", {"family": "qwen2", "o_bias": False, "mlp_bias": False,
                          "rope_divisors": (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)}, "rotary pairs"),
        ("gemma2", {"attention_scale": 0.0, "tied": False}, "a head that is not the embedding"),
    ],
)  # fmt: skip
def test_what_llama_cpp_cannot_hold_is_named(
    name: str, changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    found = held(name)
    config = replace(found.config, **changes)

    def exported() -> None:
        assert described(config).config == config
        path = converted(Stored(config, found.tensors), tmp_path / "artifact")
        export(path, tmp_path / "gguf", "gguf", ExportRequest("f32"))

    with pytest.raises(UsageError, match=said):
        exported()
    assert not (tmp_path / "gguf").exists()


def test_types_are_the_smallest_that_are_as_fine() -> None:
    kinds = [kind_of("nearest", bits, 64) for bits in (2, 3.5, 4, 4.1, 5, 6, 8)]
    assert kinds == ["q4_1", "q5_1", "q5_1", "q8_0", "q8_0", "q8_0", "q8_0"]
    assert kind_of("nearest", 4, 48) == kind_of("q4_0", 4, 48) == "bf16"
    assert kind_of("f16", 4, 48) == "f16"
    with pytest.raises(UsageError, match="too large for f16"):
        rounded(np.full((1, 32), 1e6, np.float32), "f16")


def test_bits_of_a_matrix_are_a_mean_over_its_rows(tmp_path: Path) -> None:
    plain = PlainModel(open_artifact(converted(held("llama-biases"), tmp_path / "artifact")))
    for name, spec in plain.artifact.linears.items():
        assert min(b.bits for b in spec.bands) <= plain.bits(name) <= max(b.bits for b in spec.bands)

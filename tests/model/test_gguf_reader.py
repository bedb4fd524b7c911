"""GGUF checkpoints: names, layout of Q and K, quantised tensors, and what is refused."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.model.checkpoints import gguf_tensors, random_model, random_q4_k, write_gguf
from tests.model.damage import damaged, read_or_refuse

from rockledge.errors import CheckpointError
from rockledge.model.gguf_reader import GgufCheckpoint, deinterleave

KINDS = {
    "attn_q.weight": Kind.F16, "attn_k.weight": Kind.Q8_0, "attn_v.weight": Kind.Q4_0,
    "ffn_up.weight": Kind.Q4_K, "token_embd.weight": Kind.Q8_0,
}  # fmt: skip
BIG = {"hidden_size": 256, "intermediate_size": 64}  # rows of 256, as Q4_K needs


@pytest.fixture(scope="module")
def model() -> Any:
    return random_model("llama3", **BIG)


@pytest.fixture(scope="module")
def quantised(model: Any, tmp_path_factory: pytest.TempPathFactory) -> GgufCheckpoint:
    return GgufCheckpoint.open(write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", model, KINDS))


def test_quantised_tensors_are_what_the_gguf_package_makes_of_them(
    quantised: GgufCheckpoint, model: Any
) -> None:
    stored = gguf_tensors(model)

    def through(name: str, kind: Kind) -> np.ndarray:
        return gguf.quants.dequantize(gguf.quants.quantize(np.ascontiguousarray(stored[name]), kind), kind)

    np.testing.assert_array_equal(quantised.tensor("embed"), through("token_embd.weight", Kind.Q8_0))
    np.testing.assert_array_equal(
        quantised.tensor("layers.1.attn.v"), through("blk.1.attn_v.weight", Kind.Q4_0)
    )
    up = gguf.quants.dequantize(random_q4_k((64, 256)), Kind.Q4_K)
    np.testing.assert_array_equal(quantised.tensor("layers.0.ffn.up"), up)
    np.testing.assert_array_equal(quantised.tensor("layers.0.attn.norm"), stored["blk.0.attn_norm.weight"])
    assert quantised.stored == "GGUF, F16 and F32 and Q4_0 and Q4_K and Q8_0 matrices"


def test_q_and_k_of_llama_have_their_rotary_halves_back(quantised: GgufCheckpoint, model: Any) -> None:
    # Rounding to F16 or Q8_0 goes row by row, so it commutes with putting the rows in order.
    attention = model.model.layers[1].self_attn
    q = attention.q_proj.weight.detach().numpy().astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(quantised.tensor("layers.1.attn.q"), q)
    k = gguf.quants.quantize(attention.k_proj.weight.detach().numpy(), Kind.Q8_0)
    np.testing.assert_array_equal(quantised.tensor("layers.1.attn.k"), gguf.quants.dequantize(k, Kind.Q8_0))


def test_rows_of_a_head_go_from_pairs_to_halves() -> None:
    rows = np.asarray([[0], [4], [1], [5], [2], [6], [3], [7]], np.float32)
    np.testing.assert_array_equal(deinterleave(rows, 1)[:, 0], range(8))
    np.testing.assert_array_equal(deinterleave(rows, 2)[:, 0], [0, 1, 4, 5, 2, 3, 6, 7])
    np.testing.assert_array_equal(deinterleave(rows[:, 0], 1), range(8))  # biases too


def test_the_configuration_comes_from_the_metadata(quantised: GgufCheckpoint) -> None:
    config = quantised.config
    assert (config.family, config.hidden, config.layers, config.vocab) == ("llama", 256, 2, 80)
    assert (config.heads, config.kv_heads, config.head_dim, config.ffn) == (4, 2, 64, 64)
    assert (config.context, config.tied, config.rope_theta) == (256, False, 500000.0)
    assert (config.bos, config.eos) == (1, (2,))
    assert config.norm_eps == pytest.approx(1e-6)


def test_a_list_with_one_entry_a_layer_is_read_where_layers_agree(tmp_path: Path) -> None:
    tiny = random_model("llama3")
    same = write_gguf(tmp_path / "a.gguf", tiny, metadata={"llama.attention.sliding_window": [96, 96]})
    assert GgufCheckpoint.open(same).config.windows == (96, 96)
    other = write_gguf(tmp_path / "b.gguf", tiny, metadata={"llama.attention.sliding_window": [96, 64]})
    with pytest.raises(CheckpointError, match="expected one whole number for all layers"):
        GgufCheckpoint.open(other)


def test_linear_scaling_becomes_divisors(tmp_path: Path) -> None:
    scaling = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}
    checkpoint = GgufCheckpoint.open(
        write_gguf(tmp_path / "a.gguf", random_model("llama3"), metadata=scaling)
    )
    assert checkpoint.config.rope_divisors == (4.0,) * 8


@pytest.mark.parametrize(
    ("metadata", "extra", "said"),
    [
        ({"llama.rope.scaling.type": "su"}, {}, '"su" is not supported; supported are none, linear, yarn'),
        ({}, {"rope_factors_long.weight": np.ones(8)}, "rope_factors_long.weight, but not rope_fac"),
        ({"llama.expert_count": 8}, {}, "mixture of experts"),
        ({"llama.rope.dimension_count": 8}, {}, "dimension_count is 8, expected the 16"),
        ({"split.count": 3}, {}, "first of 3 parts of a split GGUF"),
        ({"llama.attention.sliding_window": "wide"}, {}, "sliding_window is wide"),
        ({}, {"blk.1.attn_q.bias": np.ones(64)}, "blk.1.attn_q.bias does not belong"),
        ({}, {"blk.0.attn_q.bias": np.ones(64)}, "blk.0.attn_k.bias is missing"),
        ({}, {"blk.0.ffn_gate_exps.weight": np.ones(64)}, "ffn_gate_exps.weight does not belong"),
        ({}, {"rope_freqs.weight": np.ones(5)}, "does not have 8 values"),
        ({}, {"rope_freqs.weight": np.full(8, np.nan)}, "rope_freqs.weight holds 8 values that are NaN"),
    ],
)
def test_what_cannot_be_run_is_refused(
    metadata: dict[str, Any], extra: dict[str, np.ndarray], said: str, tmp_path: Path
) -> None:
    path = write_gguf(tmp_path / "a.gguf", random_model("llama3"), metadata=metadata, extra=extra)
    with pytest.raises(CheckpointError, match=said):
        GgufCheckpoint.open(path)


def test_an_unsupported_architecture_is_named(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "mamba")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(CheckpointError, match=r"'mamba' is not supported, .*; supported are llama, qwen2"):
        GgufCheckpoint.open(tmp_path / "a.gguf")


def test_values_that_are_not_finite_are_refused_by_name(tmp_path: Path) -> None:
    broken = random_model("qwen3")
    broken.model.layers[0].self_attn.k_norm.weight.data[3] = float("nan")
    checkpoint = GgufCheckpoint.open(write_gguf(tmp_path / "a.gguf", broken))
    with pytest.raises(CheckpointError, match=r"layers.0.attn.k_norm holds 1 values that are NaN"):
        checkpoint.tensor("layers.0.attn.k_norm")


def test_a_type_that_cannot_be_dequantised_is_refused_when_opened(tmp_path: Path) -> None:
    tiny = random_model("llama3")
    path = write_gguf(tmp_path / "a.gguf", tiny)
    content = bytearray(path.read_bytes())
    # The type follows the name, a u32 and one u64 dimension; integers of the same size are no weights.
    at = content.index(b"output_norm.weight") + len(b"output_norm.weight") + 12
    assert content[at : at + 4] == bytes(4)
    content[at] = Kind.I32
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="type I32 cannot be dequantised"):
        GgufCheckpoint.open(path)


def test_a_file_without_tokenizer_is_refused_when_its_files_are_asked_for(tmp_path: Path) -> None:
    checkpoint = GgufCheckpoint.open(write_gguf(tmp_path / "a.gguf", random_model("llama3"), tokenizer=False))
    with pytest.raises(CheckpointError, match="holds no tokenizer"):
        checkpoint.files()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    small = random_model("smollm", hidden_size=6, intermediate_size=4, num_hidden_layers=1, vocab_size=32)
    return write_gguf(tmp_path_factory.mktemp("whole") / "a.gguf", small).read_bytes()


@given(st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_files_are_read_or_refused(whole: bytes, tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "fuzz.gguf"
    path.write_bytes(data.draw(damaged(whole)))

    def read() -> None:
        checkpoint = GgufCheckpoint.open(path)
        for tensor in checkpoint.names():
            assert np.isfinite(checkpoint.tensor(tensor)).all()
        checkpoint.files()

    read_or_refuse(read)

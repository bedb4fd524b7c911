"""Every published prompt is predicted or left out for a reason, with what its source says."""

from bench.published_prefill import CPU, NPU, ROCKET, TABLE, by_backend, prompts
from rockledge.model.known_shapes import KNOWN_SHAPES


def test_every_row_is_a_prompt_or_left_out_for_a_reason() -> None:
    found, left = prompts()
    lines = TABLE.read_text(encoding="utf-8").splitlines()[1:]
    assert len(found) + len(left) == len(lines)
    assert all(one.reason for one in left)
    assert all(line.rstrip('"').rpartition(",")[2] for line in lines)
    assert set(dict(by_backend(found))) == {"RKLLM", "RKLLM on RK3576", CPU, ROCKET, NPU}


def test_reasons_do_not_name_the_error() -> None:
    _, left = prompts()
    unknown = [one for one in left if one.reason == "the length of the prompt is not stated"]
    assert {(one.model, one.backend) for one in unknown} >= {("Qwen3-1.7B", "RKLLM"), ("Qwen3-1.7B", CPU)}


def test_a_time_to_the_first_token_and_a_rate_are_one() -> None:
    """The vendor's 128 tokens of Qwen2-0.5B in 145.9 ms; llama-bench's 57.62 tok/s of 512."""
    found, _ = prompts()
    vendor = next(one for one in found if one.model == "Qwen2-0.5B")
    assert (vendor.tokens, vendor.seconds) == (128, 0.1459)
    bench = next(one for one in found if one.model == "Ministral-3-3B" and one.backend == ROCKET)
    assert round(bench.tok_s, 2) == 57.62


def test_what_a_prompt_is_multiplied_with() -> None:
    """Llama 3 8B has 6.98e9 weights in its layers (Meta's 8.03e9 less two embeddings of 128,256 x 4,096)."""
    found, _ = prompts()
    one = next(p for p in found if p.model == "llama3-8B" and p.backend == "RKLLM" and not p.group)
    shape = KNOWN_SHAPES["llama-3-8b"].config
    assert one.head == 128256 * 4096
    assert one.of_layers == 32 * sum(inputs * outputs for inputs, outputs in one.linears)
    assert round(one.of_layers / 1e9, 2) == 6.98
    assert one.macs == 64 * one.of_layers + one.head
    assert one.scores == shape.layers * shape.heads * 64 * 64 / 2


def test_kernels_of_a_file() -> None:
    """Q4_0 is repacked by default, a Q4_K_M only in builds that say so; F16 never."""
    found, _ = prompts()
    kinds = {
        (one.quant, one.tokens): set(one.weights)
        for one in found
        if one.model == "Ministral-3-8B" and one.backend == CPU
    }
    assert kinds["F16", 512] == {"F16"}
    assert kinds["Q4_K_M", 512] == {"Q4_K", "Q6_K"}
    assert kinds["Q4_K_M", 128] == {"Q4_K in fours", "Q6_K in fours"}
    gemma = next(p for p in found if p.model == "Gemma3-1B" and p.quant == "Q4_0")
    assert set(gemma.weights) == {"Q4_0 in fours"}


def test_quantised_weights_are_unpacked_once_for_2048_rows() -> None:
    found, _ = prompts()
    of_rocket = [one for one in found if one.backend == ROCKET]
    assert all((one.unpacked == 0) == (one.quant == "F16") for one in of_rocket)
    assert all(one.unpacked in (0, one.of_layers) for one in of_rocket)

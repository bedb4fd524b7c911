"""The float forward against transformers, and what the quantizer needs: causal, differentiable, tapped."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.model.checkpoints import MODELS, random_model, save, write_gguf
from tests.quantization.forms import FORMS, form
from transformers import AutoModelForCausalLM

from rockledge.model.block import decoder
from rockledge.model.checkpoint import Checkpoint, open_checkpoint
from rockledge.quantization.float_model.forward import block_forward, block_weights, embed_tokens, forward

TOKENS = torch.randint(0, 80, (2, 48), generator=torch.Generator().manual_seed(1))


def agree(checkpoint: Checkpoint, model: Any) -> None:
    with torch.no_grad():
        expected = model(TOKENS).logits
        found = forward(checkpoint, TOKENS)
    assert found.shape == expected.shape
    assert float(expected.std()) > 0.1  # else anything would agree
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_logits_of_every_family_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    model = random_model(name)
    agree(open_checkpoint(save(model, tmp_path)), model)


@pytest.mark.parametrize("name", FORMS)
def test_logits_of_every_form_are_those_of_transformers(name: str) -> None:
    agree(*form(name))


def test_sharded_directories_hold_the_same_model(tmp_path: Path) -> None:
    model = random_model("llama3")
    save(model, tmp_path, max_shard_size="50KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    agree(open_checkpoint(tmp_path), model)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_files_are_widened_exactly(dtype: torch.dtype, tmp_path: Path) -> None:
    save(random_model("llama2").to(dtype), tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    assert str(dtype).removeprefix("torch.") in checkpoint.stored
    agree(checkpoint, AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32))


@pytest.mark.parametrize("name", ["llama2", "smollm", "qwen2.5-tied", "qwen3"])
def test_gguf_files_hold_the_same_model(name: str, tmp_path: Path) -> None:
    model = random_model(name)
    agree(open_checkpoint(write_gguf(tmp_path / "tiny.gguf", model)), model)


def test_gguf_frequencies_are_the_scaling(tmp_path: Path) -> None:
    # llama.cpp stores Llama 3.1's scaling as divisors of the frequencies; transformers holds the scaled
    # frequencies.
    model = random_model("llama3.1-scaled")
    plain = 500000.0 ** (-torch.arange(0, 16, 2) / 16)
    divisors = (plain / model.model.rotary_emb.inv_freq).numpy()
    assert divisors.max() > 7
    agree(
        open_checkpoint(write_gguf(tmp_path / "t.gguf", model, extra={"rope_freqs.weight": divisors})), model
    )


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return open_checkpoint(save(random_model("qwen3"), tmp_path_factory.mktemp("qwen3")))


def test_a_token_sees_only_what_came_before(tiny: Checkpoint) -> None:
    changed = TOKENS.clone()
    changed[:, 20] = (changed[:, 20] + 1) % 80
    with torch.no_grad():
        before, after = forward(tiny, TOKENS), forward(tiny, changed)
    torch.testing.assert_close(before[:, :20], after[:, :20], rtol=0, atol=1e-5)
    assert float((before[:, 20:] - after[:, 20:]).abs().max()) > 1e-2


@pytest.mark.parametrize("name", ["gemma2", "gemma3", "smollm3", "ministral3"])
def test_documents_in_one_sequence_do_not_see_each_other(name: str) -> None:
    """Each is computed as if it were alone, from position 0 on."""
    checkpoint, _ = form(name)
    tree, x, lengths = decoder(checkpoint.config), embed_tokens(checkpoint, TOKENS), (19, 3, 26)
    positions = torch.cat([torch.arange(length) for length in lengths]).expand(2, -1)
    for layer in range(2):
        weights = block_weights(checkpoint, layer)
        found = block_forward(weights, x, tree, layer, positions=positions)
        alone = [block_forward(weights, part, tree, layer) for part in x.split(lengths, dim=1)]
        torch.testing.assert_close(found, torch.cat(alone, dim=1), rtol=1e-4, atol=1e-4)
        assert not torch.allclose(found, block_forward(weights, x, tree, layer), atol=1e-2)


def test_gradients_with_respect_to_input_and_weights_are_right(tiny: Checkpoint) -> None:
    weights = {k: v.double().requires_grad_() for k, v in block_weights(tiny, 0).items()}
    x = embed_tokens(tiny, TOKENS[:1, :3]).double().requires_grad_()

    def block(x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        return block_forward(dict(zip(weights, values, strict=True)), x, decoder(tiny.config), 0)

    assert torch.autograd.gradcheck(block, (x, *weights.values()), fast_mode=True)


def test_taps_see_the_input_of_every_linear_and_may_replace_it(tiny: Checkpoint) -> None:
    seen: dict[str, torch.Size] = {}

    def keep(place: str, x: torch.Tensor) -> torch.Tensor:
        seen[place] = x.shape
        return x

    weights, x = block_weights(tiny, 1), embed_tokens(tiny, TOKENS)
    tree = decoder(tiny.config)
    whole = block_forward(weights, x, tree, 1)
    torch.testing.assert_close(block_forward(weights, x, tree, 1, keep), whole, rtol=0, atol=0)
    width = {place: shape[-1] for place, shape in seen.items()}
    assert width == {"attn.in": 64, "attn.o": 128, "ffn.in": 64, "ffn.down": 96}
    # Nothing reaches the residual stream once the inputs of O and down are zero.
    closed = block_forward(
        weights, x, tree, 1, lambda place, x: x * 0 if place in ("attn.o", "ffn.down") else x
    )
    torch.testing.assert_close(closed, x, rtol=0, atol=0)


def test_a_norm_left_out_has_a_gain_of_one(tiny: Checkpoint) -> None:
    weights, x = block_weights(tiny, 0), embed_tokens(tiny, TOKENS)
    ones = weights | {"attn.norm": torch.ones(64), "ffn.norm": torch.ones(64)}
    bare = {k: v for k, v in weights.items() if k not in ("attn.norm", "ffn.norm")}
    tree = decoder(tiny.config)
    torch.testing.assert_close(block_forward(bare, x, tree, 0), block_forward(ones, x, tree, 0))

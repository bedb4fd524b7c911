"""What `--to hf` writes is what transformers computes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from tests.export.artifacts import NAMES, TOKENS, converted, float_logits, held, without_head

from rockledge.artifact import open_artifact
from rockledge.errors import UsageError
from rockledge.export.hf_settings import hf_settings
from rockledge.export.request import ExportRequest
from rockledge.export.targets import export
from rockledge.model.checkpoint import open_checkpoint
from rockledge.model.config import ModelConfig
from rockledge.model.rope import rope_divisors
from rockledge.model.rope_scaling import yarn_divisors, yarn_magnitude


@pytest.mark.parametrize("name", [*NAMES, "tied"])
def test_transformers_computes_the_artifacts_logits(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = without_head(held("llama-biases")) if name == "tied" else held(name)
    path = converted(found, tmp_path / "artifact")
    written = export(path, tmp_path / "hf", "hf", ExportRequest("f32"))
    assert written.report["cost"] is None
    model = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "hf", dtype=torch.float32, attn_implementation="eager"
    ).eval()
    with torch.no_grad():
        logits = model(torch.tensor([TOKENS])).logits[0].numpy()
    expected = float_logits(found, path, TOKENS, monkeypatch)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def test_a_model_of_embeddings_keeps_how_they_are_made(tmp_path: Path) -> None:
    found = without_head(held("llama-biases"))
    found = replace(found, config=replace(found.config, headless=True, pooling="mean"))
    path = converted(found, tmp_path / "artifact")
    export(path, tmp_path / "hf", "hf", ExportRequest("f32"))
    config = open_checkpoint(tmp_path / "hf").config
    assert (config.headless, config.pooling) == (True, "mean")
    model = transformers.AutoModel.from_pretrained(tmp_path / "hf", dtype=torch.float32).eval()
    assert not any("lm_head" in name for name, _ in model.named_parameters())


def test_the_cost_of_a_smaller_type_is_measured(tmp_path: Path) -> None:
    path = converted(held("llama-biases"), tmp_path / "artifact")
    written = export(path, tmp_path / "hf", "hf", ExportRequest(tokens=128))
    cost = written.report["cost"]["bf16"]
    assert 0 < cost["kl_mean_nats"] < 1e-3
    assert "nats a token" in written.lines[0]
    said = json.loads((tmp_path / "hf" / "export.json").read_text())
    assert said["artifact_digest"] == open_artifact(path).digest
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    assert tokenizer.encode("AB", add_special_tokens=False) == [
        json.loads((path / "tokenizer.json").read_text())["model"]["vocab"]["AB"]
    ]


LLAMA3 = {
    "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip


def config(**changes: object) -> ModelConfig:
    return replace(held("llama-biases").config, qkv_bias=False, o_bias=False, mlp_bias=False, **changes)  # type: ignore[arg-type]


def test_rotary_scaling_gets_its_usual_name_back() -> None:
    llama3 = config(head_dim=64, rope_theta=5e5, context=131072, rope_divisors=rope_divisors(LLAMA3, 64, 5e5))
    assert hf_settings(llama3)[0]["rope_scaling"] == LLAMA3
    yarn = config(
        head_dim=64, rope_theta=1e6, context=131072, rope_factor=yarn_magnitude(4.0),
        rope_divisors=yarn_divisors(64, 1e6, 4.0, 32768),
    )  # fmt: skip
    assert hf_settings(yarn)[0]["rope_scaling"] == {
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768,
    }  # fmt: skip
    odd = tuple(1.0 + 0.1 * i for i in range(8))
    scaling = hf_settings(config(rope_divisors=odd))[0]["rope_scaling"]
    assert scaling["rope_type"] == "longrope"
    assert scaling["short_factor"] == list(odd)


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"family": "phi3", "attention_softcap": 2.0}, "attention_softcap"),
        ({"family": "phi3", "windows": (8, 0, 0, 0)}, "windows"),
        ({"embedding_scale": 3.0}, "embedding_scale"),
        ({"family": "mistral", "branch_norms": "both"}, "branch_norms"),
        ({"family": "qwen2", "qkv_bias": True, "mlp_bias": True}, "mlp_bias"),
        ({"query_growth": 0.5, "query_growth_length": 16}, "query_growth"),
    ],
)
def test_what_a_class_cannot_hold_is_named(changes: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=f"of transformers (cannot hold|has no place for).*{said}"):
        hf_settings(replace(config(), **changes))  # type: ignore[arg-type]

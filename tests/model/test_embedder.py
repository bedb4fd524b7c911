"""Models without a language head: what tells them, and the states that they give."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.model.checkpoints import random_model, save, write_gguf

from rockledge.errors import CheckpointError
from rockledge.model.checkpoint import open_checkpoint
from rockledge.model.hf_config import config_from_hf, config_to_hf

MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
]
LAST = {"word_embedding_dimension": 64, "pooling_mode_mean_tokens": False, "pooling_mode_lasttoken": True}


def embedder(path: Path, modules: Any = MODULES, pooling: Any = LAST) -> Path:
    """A tied Qwen3 as sentence-transformers keeps it."""
    save(random_model("qwen3-tied").model, path)
    (path / "1_Pooling").mkdir()
    (path / "modules.json").write_text(json.dumps(modules))
    (path / "1_Pooling/config.json").write_text(json.dumps(pooling))
    return path


def test_an_embedder_is_known_by_its_modules(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(embedder(tmp_path))
    assert (checkpoint.config.headless, checkpoint.config.tied) == (True, True)
    assert "head" not in checkpoint.names()
    assert any("cannot generate" in note for note in checkpoint.notes)
    assert config_from_hf(config_to_hf(checkpoint.config)) == checkpoint.config


def test_newer_files_say_it_in_their_way(tmp_path: Path) -> None:
    """As sentence-transformers writes them from version 5.4 on."""
    kinds = [
        "sentence_transformers.base.modules.transformer.Transformer",
        "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
        "sentence_transformers.base.modules.normalize.Normalize",
    ]
    modules = [{**module, "type": kind} for module, kind in zip(MODULES, kinds, strict=True)]
    pooling = {"embedding_dimension": 64, "pooling_mode": "lasttoken", "include_prompt": True}
    assert open_checkpoint(embedder(tmp_path, modules, pooling)).config.headless


@pytest.mark.parametrize("said", [{"pooling_mode_mean_tokens": True}, {"pooling_mode": "mean"}, {}])
def test_the_mean_of_all_states(said: dict[str, Any], tmp_path: Path) -> None:
    config = open_checkpoint(embedder(tmp_path, pooling=said)).config
    assert (config.headless, config.pooling) == (True, "mean")
    assert config_from_hf(config_to_hf(config)) == config


def test_code_of_its_own_is_refused(tmp_path: Path) -> None:
    """As in gte-Qwen2, whose code attends in both directions."""
    stored = json.loads((embedder(tmp_path) / "config.json").read_text())
    stored["auto_map"] = {"AutoModel": "modeling_qwen.Qwen2Model"}
    (tmp_path / "config.json").write_text(json.dumps(stored))
    with pytest.raises(CheckpointError, match=r"brings code of its own.*modeling_qwen\.Qwen2Model"):
        open_checkpoint(tmp_path)


def test_a_model_saved_without_its_head_is_one(tmp_path: Path) -> None:
    model = random_model("qwen3")
    checkpoint = open_checkpoint(save(model.model, tmp_path))
    assert checkpoint.config.headless
    expected = model.model.norm.weight.detach().numpy()
    np.testing.assert_array_equal(checkpoint.tensor("final_norm"), expected)


def test_a_tied_model_saved_without_the_prefix_still_has_its_head(tmp_path: Path) -> None:
    assert not open_checkpoint(save(random_model("qwen3-tied").model, tmp_path)).config.headless


def test_a_reranker_is_a_language_model(tmp_path: Path) -> None:
    modules = [module for module in MODULES if "Pooling" not in module["type"]]
    assert not open_checkpoint(embedder(tmp_path, modules)).config.headless


@pytest.mark.parametrize(
    ("modules", "pooling", "said"),
    [
        (
            MODULES,
            {"pooling_mode_max_tokens": True},
            "by max, which is not supported; supported are lasttoken or mean",
        ),
        (MODULES, {"pooling_mode": "mean", "include_prompt": False}, "without the tokens of its prompts"),
        (MODULES, {**LAST, "pooling_mode_cls_token": True}, "by cls and lasttoken"),
        (MODULES, {"pooling_mode": "cls"}, "by cls, which"),
        (MODULES, {"pooling_mode": ["lasttoken", "max"]}, "by lasttoken and max"),
        (MODULES, {"pooling_mode": ["weightedmean"]}, "by weightedmean"),
        (MODULES, [], "not an object"),
        ([{"type": "sentence_transformers.models.Dense"}], LAST, "module Dense, which is not supported"),
        ({}, LAST, "not a list of modules"),
    ],
)
def test_what_is_pooled_otherwise_is_refused(modules: Any, pooling: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=said):
        open_checkpoint(embedder(tmp_path, modules, pooling))


@pytest.mark.parametrize(
    ("pooling", "headless", "way"), [(0, False, "last"), (1, True, "mean"), (3, True, "last")]
)
def test_the_pooling_of_a_gguf_file_tells(pooling: int, headless: bool, way: str, tmp_path: Path) -> None:
    metadata = {"qwen3.pooling_type": pooling}
    path = write_gguf(tmp_path / "a.gguf", random_model("qwen3"), metadata=metadata)
    config = open_checkpoint(path).config
    assert (config.headless, config.tied, config.pooling) == (headless, headless, way)


@pytest.mark.parametrize("pooling", [2, 4, 9])
def test_other_poolings_of_gguf_files_are_refused(pooling: int, tmp_path: Path) -> None:
    metadata = {"qwen3.pooling_type": pooling}
    path = write_gguf(tmp_path / "a.gguf", random_model("qwen3"), metadata=metadata)
    with pytest.raises(
        CheckpointError, match=f"qwen3.pooling_type is {pooling} .*expected 0 .none., 1 .mean. or 3"
    ):
        open_checkpoint(path)

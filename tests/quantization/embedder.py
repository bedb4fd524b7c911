"""A small random Qwen3 without a language head, as sentence-transformers keeps it, and what transformers
makes of texts with it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers
from tests.model.checkpoints import random_model, save
from tests.model.vocabularies import train_byte_level
from tokenizers import processors

TEXTS = [
    "Which river flows through Prague?",
    "The Vltava flows through Prague.",
    "A gateway is a small computer between a network of sensors and the internet. " * 4,
    "x",
    "",
]
_PLACES = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}


def write_embedder(path: Path, pooling: str = "lasttoken") -> Any:
    """Writes the directory and returns its transformers model. Texts end with <|endoftext|>, which the
    post-processor appends, as Qwen3-Embedding's does."""
    model = random_model(
        "qwen3", vocab_size=600, num_hidden_layers=3, bos_token_id=None, eos_token_id=0
    ).model
    save(model, path)
    write_files(path, tuple(_PLACES), pooling)
    return model.eval()


def write_files(path: Path, modules: tuple[str, ...], pooling: str = "lasttoken") -> None:
    """Writes a tokenizer whose texts end with <|endoftext|>, and the `modules` of sentence-transformers."""
    rules = train_byte_level("qwen2")
    end = processors.TemplateProcessing(single="$A <|endoftext|>", special_tokens=[("<|endoftext|>", 0)])
    rules.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), end])
    rules.save(str(path / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    listed = [
        {"idx": i, "name": str(i), "path": _PLACES[kind], "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(modules)
    ]
    (path / "modules.json").write_text(json.dumps(listed))
    if "Pooling" in modules:
        (path / "1_Pooling").mkdir()
        config = {"word_embedding_dimension": 64, f"pooling_mode_{pooling}": True, "include_prompt": True}
        (path / "1_Pooling/config.json").write_text(json.dumps(config))


def embeddings(path: Path, model: Any, texts: list[str], *, mean: bool = False) -> npt.NDArray[np.float32]:
    """fp32 [texts, hidden]: the state after the last token, or the mean of all, normalised; by
    transformers."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    with torch.no_grad():
        whole = [model(tokenizer(text, return_tensors="pt").input_ids)[0][0] for text in texts]
    states = [state.mean(dim=0) if mean else state[-1] for state in whole]
    return torch.nn.functional.normalize(torch.stack(states), dim=-1).numpy()

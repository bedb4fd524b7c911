"""Models that are small enough to train in a test."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rockledge.distillation.settings import Settings, settings
from rockledge.synth import model_files, shape_config

VOCABULARY = 300


@dataclass(frozen=True)
class Pair:
    """Directories of teacher and student, and a file of text."""

    teacher: Path
    student: Path
    data: Path

    def settings(self, **values: Any) -> Settings:
        """Eight steps of four sequences, with a checkpoint every third."""
        usual = {"sequence": 48, "batch": 4, "micro_batch": 2, "tokens": 48 * 4 * 8, "top_k": 16}
        usual |= {"save_every": 3, "evaluate_every": 4, "learning_rate": 8e-3, "data": [str(self.data)]}
        return settings({**usual, **values})


def made_model(
    path: Path,
    *,
    hidden: int,
    layers: int,
    seed: int,
    vocabulary: int = VOCABULARY,
    tied: bool = True,
    context: int = 512,
) -> None:
    """Writes a random Llama with a tokenizer of bytes."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            hidden_size=hidden,
            intermediate_size=2 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            vocab_size=vocabulary,
            initializer_range=0.15,
            tie_word_embeddings=tied,
            bos_token_id=1,
            eos_token_id=2,
            max_position_embeddings=context,
        )
    )
    model.save_pretrained(path)
    for name, data in model_files(replace(shape_config("toy"), vocab=vocabulary)).items():
        (path / name).write_bytes(data)

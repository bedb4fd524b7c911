"""The teacher writes: batches of prompts through transformers' `generate`, each batch with its own seed."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from rockledge.distillation.loading import load_model
from rockledge.distillation.question_answer.journal import Output
from rockledge.distillation.question_answer.prompts import Prompts
from rockledge.errors import TrainingError
from rockledge.model.special_tokens import json_object, special_tokens
from rockledge.model.tokenizer import Tokenizer

_TEMPERATURE, _TOP_P = 0.7, 0.9


class WritingTeacher:
    """A loaded model. A batch's outputs depend on its prompts and its seed alone."""

    def __init__(self, directory: Path, files: Mapping[str, bytes], prompts: Prompts, bf16: bool) -> None:
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model = load_model(directory, torch.bfloat16 if bf16 else torch.float32)
        self._model.requires_grad_(False).eval().to(self._device)
        self._prompts = prompts
        self._ends = _ends(files, self._model.config)
        self._model.generation_config = GenerationConfig()  # its own would fill in what is not said here

    @torch.no_grad()
    def write(self, batch: Sequence[Sequence[int]], seed: str, most: int) -> list[Output]:
        """The outputs for prompts, of at most `most` tokens each.

        Raises:
            TrainingError: the device has no room, or the teacher's logits are not finite.
        """
        longest = max(map(len, batch))
        pad = min(self._ends, default=0)
        ids = torch.tensor([[pad] * (longest - len(one)) + list(one) for one in batch])
        mask = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in batch])
        config = GenerationConfig(
            do_sample=True,
            temperature=_TEMPERATURE,
            top_p=_TOP_P,
            top_k=0,
            max_new_tokens=most,
            pad_token_id=pad,
            eos_token_id=sorted(self._ends) or None,
            use_cache=True,
        )
        devices = [self._device.index or 0] if self._device.type == "cuda" else []
        try:
            with torch.random.fork_rng(devices):
                torch.manual_seed(int(hashlib.sha256(seed.encode()).hexdigest()[:15], 16))
                written: Any = self._model.generate(
                    input_ids=ids.to(self._device),
                    attention_mask=mask.to(self._device),
                    generation_config=config,
                )
        except torch.OutOfMemoryError as error:
            raise TrainingError(
                f"the GPU has no room for {len(batch)} prompts of {longest} tokens at a time; choose a "
                "smaller --synthesize-batch, or add --bf16"
            ) from error
        except RuntimeError as error:
            if "probability tensor" not in str(error) and "nan" not in str(error).lower():
                raise
            raise TrainingError(
                "the teacher's logits are not numbers; try without --bf16, or fetch the teacher again"
            ) from error
        return [self._output(row) for row in written[:, longest:].tolist()]

    def _output(self, row: list[int]) -> Output:
        end = next((place for place, token in enumerate(row) if token in self._ends), None)
        return self._prompts.begun + self._prompts.decode(row[:end]), end is not None


def _ends(files: Mapping[str, bytes], config: Any) -> set[int]:
    """The tokens that end an answer, by any of the files that say so."""
    stated: list[Any] = [
        json_object(files, name).get("eos_token_id") for name in ("generation_config.json", "config.json")
    ]
    name = special_tokens(files).get("eos_token")
    stated.append(None if name is None else Tokenizer.from_files(files).id(name))
    found: set[int] = set()
    for value in stated:
        found |= {one for one in (value if isinstance(value, list) else [value]) if type(one) is int}
    return {token for token in found if 0 <= token < config.get_text_config().vocab_size}

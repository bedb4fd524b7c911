"""Which tokens end a turn, where the same name is text in one vocabulary and a signal in another."""

import json

import pytest

from rockledge.model.gguf_tokenizer import tokenizer_facts as gguf_facts
from rockledge.model.hf_tokens import tokenizer_facts as hf_facts
from rockledge.model.special_ids import special_ids

NAMES = ["<pad>", "<eos>", "<end_of_turn>", "</s>", "a"]
CONTROL, USER_DEFINED, NORMAL = 3, 4, 1  # llama.cpp's token types


@pytest.mark.parametrize(("special", "ends"), [(False, (2,)), (True, (2, 3))])
def test_an_html_tag_ends_no_answer(special: bool, ends: tuple[int, ...]) -> None:
    # Gemma's vocabulary has the tags of HTML as added tokens that are not special, </s> among them.
    added = [
        {"content": name, "id": i, "special": special or name != "</s>"} for i, name in enumerate(NAMES[:4])
    ]
    stored = {"added_tokens": added, "model": {"vocab": {"a": 4}}}
    facts = hf_facts({"tokenizer.json": json.dumps(stored).encode()})
    assert special_ids([], facts, 5).eos == ends
    kinds = [CONTROL, CONTROL, CONTROL, CONTROL if special else USER_DEFINED, NORMAL]
    metadata = {"tokenizer.ggml.tokens": NAMES, "tokenizer.ggml.token_type": kinds}
    assert special_ids([], gguf_facts(metadata), 5).eos == ends


def test_a_signal_that_a_file_calls_text_still_ends_an_answer() -> None:
    added = [{"content": "<|im_end|>", "id": 1, "special": False}]
    facts = hf_facts({"tokenizer.json": json.dumps({"added_tokens": added}).encode()})
    assert special_ids([], facts, 5).eos == (1,)

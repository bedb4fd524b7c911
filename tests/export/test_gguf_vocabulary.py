"""Tokenizers as GGUF metadata."""

import json
from dataclasses import replace
from typing import Any

import pytest
from tests.export.artifacts import held
from tests.model.vocabularies import CORPUS, PUBLISHED
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from rockledge.errors import UsageError
from rockledge.export.gguf_vocabulary import check_vocabulary, vocabulary
from rockledge.model.gguf_tokenizer import tokenizer_files
from rockledge.model.tokenizer import Tokenizer as Ours

CONFIG = replace(held("llama-biases").config, vocab=700, bos=None, eos=())


def trained(pre: Any, **model: Any) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(**model))
    tokenizer.pre_tokenizer = pre
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    )
    tokenizer.add_special_tokens([AddedToken("<|im_end|>", special=True)])
    return tokenizer


def files_of(tokenizer: Tokenizer, **settings: Any) -> dict[str, bytes]:
    return {
        "tokenizer.json": tokenizer.to_str().encode(),
        "tokenizer_config.json": json.dumps(settings).encode(),
        "chat_template.jinja": b"{{ messages }}",
    }


@pytest.mark.parametrize("word", PUBLISHED)
def test_published_ways_of_splitting_have_their_word(word: str) -> None:
    tokenizer = trained(PUBLISHED[word], ignore_merges=word == "llama-bpe")
    if word == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    files = files_of(tokenizer)
    found = vocabulary(files, CONFIG)
    assert found["tokenizer.ggml.pre"] == word
    assert len(found["tokenizer.ggml.tokens"]) == CONFIG.vocab
    assert found["tokenizer.chat_template"] == "{{ messages }}"
    check_vocabulary(found, files, CONFIG)
    back = Ours.from_files(tokenizer_files("x", found, CONFIG), CONFIG.vocab)
    for text in CORPUS:
        assert back.encode(text, bos=False) == tokenizer.encode(text, add_special_tokens=False).ids


def test_merges_become_scores_that_merge_alike() -> None:
    pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    letters = sorted({c for text in CORPUS for c in text.replace(" ", "\u2581")})
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    tokenizer.train_from_iterator(
        [text.split(" ") for text in CORPUS],
        trainers.BpeTrainer(
            vocab_size=600,
            special_tokens=["<unk>", "<s>", "</s>", *pieces],
            initial_alphabet=letters,
            show_progress=False,
        ),
    )
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = [one for one in content["added_tokens"] if one["id"] < 3]
    content["decoder"] = {
        "type": "Sequence",
        "decoders": [
            {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ],
    }
    files = {"tokenizer.json": json.dumps(content).encode()}
    found = vocabulary(files, CONFIG)
    assert found["tokenizer.ggml.model"] == "llama"
    assert found["tokenizer.ggml.add_space_prefix"] is True
    assert found["tokenizer.ggml.token_type"][:4] == [2, 3, 3, 6]
    check_vocabulary(found, files, CONFIG)


def test_a_tokenizer_that_gguf_has_no_word_for_is_refused() -> None:
    odd = pre_tokenizers.Sequence([pre_tokenizers.Punctuation(), PUBLISHED["gpt-2"]])
    with pytest.raises(UsageError, match="the way in which the tokenizer splits text has no name"):
        vocabulary(files_of(trained(odd)), CONFIG)
    unigram = Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0)], unk_id=0))
    with pytest.raises(UsageError, match="type 'Unigram', expected BPE"):
        vocabulary(files_of(unigram), CONFIG)


def test_another_tokenizer_is_found_out() -> None:
    files = files_of(trained(PUBLISHED["smollm"]))
    found = {**vocabulary(files, CONFIG), "tokenizer.ggml.pre": "gpt-2"}
    with pytest.raises(UsageError, match="has other tokens there"):
        check_vocabulary(found, files, CONFIG)

"""How few tokens a text can have, by its bytes: never more than the tokenizers package makes of it."""

import json
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers

from rockledge.model.tokenizer import Tokenizer

ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
LONGEST = "Ġhello"
LEVEL = {"pre_tokenizer": pre_tokenizers.ByteLevel(add_prefix_space=False), "decoder": decoders.ByteLevel()}


def made(letters: list[str], added: tuple[AddedToken, ...] = (), model: Any = None, **parts: Any) -> Tokenizer:
    """A byte-level tokenizer of `letters`, with merges up to " hello"."""
    pairs = [("l", "l"), ("h", "e"), ("he", "ll"), ("hell", "o"), ("Ġ", "hello")]
    words = [*letters, *("".join(pair) for pair in pairs)]
    vocab = {word: i for i, word in enumerate(words)}
    rules = tokenizers.Tokenizer(model or models.BPE(vocab=vocab, merges=pairs))
    for name, part in {**LEVEL, **parts}.items():
        setattr(rules, name, part)
    rules.add_special_tokens(list(added))
    return Tokenizer.from_files({"tokenizer.json": rules.to_str().encode()})


FORMS: dict[str, Tokenizer] = {
    "plain": made(ALPHABET),
    "nfc": made(ALPHABET, normalizer=normalizers.NFC()),
    "nfkc": made(ALPHABET, normalizer=normalizers.Sequence([normalizers.NFKC()])),
    "bytes missing": made([letter for letter in ALPHABET if letter not in "ðă\u0101"]),
    "strips": made(ALPHABET, added=(AddedToken("<|end|>", special=True, rstrip=True, lstrip=True),)),
    "lower case": made(ALPHABET, normalizer=normalizers.Lowercase()),
    "shorter": made(ALPHABET, normalizer=normalizers.Replace("aaaa", "b")),
    "removes": made(
        ALPHABET,
        pre_tokenizer=pre_tokenizers.Sequence(
            [pre_tokenizers.Split("x", "removed"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        ),
    ),
}
texts = st.text(
    st.sampled_from("aehlox \n\u0301\u0ddd\u0dd9\u0dcf\u0dca\U0001d400\U0010ffff\u212a\x01é") | st.characters(), max_size=40
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(FORMS)), texts, st.integers(1, 60))
def test_no_text_has_fewer_tokens(form: str, text: str, times: int) -> None:
    tokenizer = FORMS[form]
    for whole in (text * times, "<|end|>" + text * times, " " * 5 * times + "<|end|>"):
        assert tokenizer.least_tokens(whole) <= len(tokenizer.encode(whole, bos=False))


@pytest.mark.parametrize("form", ["plain", "nfc", "bytes missing", "strips"])
def test_a_long_text_is_known_to_be_long(form: str) -> None:
    tokenizer = FORMS[form]
    assert tokenizer.longest_token == (7 if form == "strips" else 6)
    assert tokenizer.least_tokens("hello" * 60_000) >= 300_000 // 21


@pytest.mark.parametrize("form", ["lower case", "shorter", "removes"])
def test_what_may_drop_text_promises_nothing(form: str) -> None:
    assert FORMS[form].least_tokens("hello" * 60_000) == 0


def test_pieces_of_sentencepiece_count_as_the_text_they_stand_for() -> None:
    byte_pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    words = ["<unk>", *byte_pieces, "▁", "▁▁", "a"]
    model = models.BPE(
        {word: i for i, word in enumerate(words)}, [("▁", "▁")], byte_fallback=True, unk_token="<unk>", fuse_unk=True
    )
    rules = tokenizers.Tokenizer(model)
    rules.normalizer = normalizers.Replace(" ", "▁")
    rules.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer = Tokenizer.from_files({"tokenizer.json": json.dumps(json.loads(rules.to_str())).encode()})
    for text in (" " * 999, "a" * 999, "é" * 999):
        assert 0 < tokenizer.least_tokens(text) <= len(tokenizer.encode(text, bos=False))

"""By how much an encoder can shorten a text before its tokens cover it: bounds tokens by bytes alone."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

# Bytes of UTF-8 that a normal form may leave of N, at worst: N over this. Of canonical forms U+0DDD is the
# worst (three characters of three bytes each), of compatibility forms letters of mathematics (four bytes to
# one), after canonical composition at most.
_NORMAL_FORMS = {"NFC": 3, "NFD": 3, "NFKC": 12, "NFKD": 12}

# Pre-tokenizers that leave every character in some piece.
_COMPLETE = frozenset({"ByteLevel", "Metaspace", "Digits", "Split", "Punctuation", "UnicodeScripts"})


@dataclass(frozen=True)
class TextBound:
    """An encoder may shorten the bytes of a text by `factor`, and drops the bytes `dropped`."""

    factor: int
    dropped: bytes = b""


def text_bound(content: Mapping[str, Any], alphabet: Mapping[str, int]) -> TextBound | None:
    """What the encoder of a tokenizer.json (parsed) may do to a text, apart from white space beside added
    tokens that strip it; None when it may drop anything. `alphabet`: bytes by their byte-level characters."""
    model = content.get("model") or {}
    vocab = model.get("vocab")
    dropped = b""
    if not model.get("byte_fallback"):
        if model.get("unk_token") is not None or not isinstance(vocab, dict):
            return None  # unknown characters become one token together
        missing = [byte for character, byte in alphabet.items() if character not in vocab]
        if not any(step.get("type") == "ByteLevel" for step in _steps(content.get("pre_tokenizer"))):
            return None
        dropped = bytes(sorted(missing))
    for step in _steps(content.get("pre_tokenizer")):
        if step.get("type") not in _COMPLETE or step.get("behavior") == "Removed":
            return None
    factor = 1
    for step in _steps(content.get("normalizer")):
        kind = step.get("type")
        if kind in _NORMAL_FORMS:
            factor *= _NORMAL_FORMS[kind]
        elif kind == "Replace":
            old = step["pattern"].get("String")
            if old is None or len(old.encode()) > len(step["content"].encode()):
                return None
        elif kind != "Prepend":
            return None
    return TextBound(factor, dropped)


def _steps(step: Any) -> Iterator[Mapping[str, Any]]:
    """A normalizer or pre-tokenizer as the plain steps that it consists of."""
    if not isinstance(step, dict):
        return
    if step.get("type") == "Sequence":
        for part in step.get("normalizers") or step.get("pretokenizers") or ():
            yield from _steps(part)
    else:
        yield step

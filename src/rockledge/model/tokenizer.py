"""Text to token ids and back, from an ordinary tokenizer.json, whole or token by token.

Encoding is the `tokenizers` package's. Decoding goes through the bytes of each token instead: a stream of
tokens can then be decoded exactly, and the bytes are what an API reports for a token that is no whole
character.
"""

import codecs
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import tokenizers

from rockledge.errors import CheckpointError

_FILES = ("tokenizer.json", "tokenizer_config.json")


@dataclass(frozen=True)
class _Spelling:
    """How the pieces of a vocabulary spell bytes.

    `byte_level`: every character of a piece stands for one byte. Otherwise pieces are UTF-8 text after
    `replacements`, and with `byte_pieces` a piece such as <0x0A> is one byte. `strip`: a text's first space
    is not its own but was put there by the encoder.
    """

    byte_level: bool
    replacements: tuple[tuple[str, str], ...] = ()
    byte_pieces: bool = False
    strip: bool = False

    def spell(self, piece: str) -> bytes:
        """The bytes of one piece."""
        if self.byte_level:
            table = _byte_of_character()
            # Added tokens may hold characters outside the table; they stand for themselves.
            return bytes(table[c] for c in piece) if all(c in table for c in piece) else piece.encode()
        if self.byte_pieces and re.fullmatch(r"<0x[0-9A-Fa-f]{2}>", piece):
            return bytes([int(piece[3:5], 16)])
        for old, new in self.replacements:
            piece = piece.replace(old, new)
        return piece.encode()


class Tokenizer:
    """One vocabulary. Make it with `from_files` or `load`."""

    def __init__(self, rules: tokenizers.Tokenizer, spelling: _Spelling, bos: int | None) -> None:
        self._rules, self._spelling = rules, spelling
        self._bytes: dict[int, bytes] = {}
        self.bos = bos
        """Token that encoded texts begin with; None when this tokenizer adds none."""
        self.special_ids = frozenset(i for i, t in rules.get_added_tokens_decoder().items() if t.special)
        """Tokens that are signals, not text; decoding leaves them out."""

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> "Tokenizer":
        """From the contents of tokenizer.json and, if there, tokenizer_config.json.

        Raises CheckpointError when tokenizer.json is missing, damaged or decodes in an unknown way.
        """
        if "tokenizer.json" not in files:
            raise CheckpointError(
                "there is no tokenizer.json beside the model; copy it from the original checkpoint"
            )
        try:
            text = files["tokenizer.json"].decode()
            rules = tokenizers.Tokenizer.from_str(text)
            decoder = json.loads(text).get("decoder")
        except Exception as error:  # the package raises nothing narrower
            raise CheckpointError(
                f"tokenizer.json cannot be used ({str(error)[:200]}); fetch it again"
            ) from error
        rules.no_truncation()
        rules.no_padding()
        return cls(rules, _spelling(decoder), _added_bos(rules, token_config(files)))

    @classmethod
    def load(cls, directory: str | Path) -> "Tokenizer":
        """From the tokenizer files in a directory."""
        paths = [Path(directory) / name for name in _FILES]
        return cls.from_files({path.name: path.read_bytes() for path in paths if path.is_file()})

    @property
    def size(self) -> int:
        """Number of tokens, added ones included; a model's embedding may have more rows."""
        return int(self._rules.get_vocab_size(with_added_tokens=True))

    def encode(self, text: str, bos: bool) -> list[int]:
        """Token ids. Special tokens named in the text are recognised.

        `bos` puts the beginning-of-sequence token in front if the model wants one: true for plain text, false
        for a rendered chat template, which writes its own.
        """
        # Lone surrogates, which JSON can carry, have no UTF-8; they become question marks.
        ids = self._rules.encode(text.encode(errors="replace").decode(), add_special_tokens=False).ids
        return [self.bos, *ids] if bos and self.bos is not None else list(ids)

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """The text of a whole sequence; bytes that are not UTF-8 become U+FFFD."""
        stream = StreamDecoder(self, skip_special=skip_special, start=True)
        return "".join([*(stream.push(i) for i in ids), stream.flush()])

    def stream(self) -> "StreamDecoder":
        """A decoder for tokens that continue a text."""
        return StreamDecoder(self)

    def token_bytes(self, token: int) -> bytes:
        """The bytes one token stands for (a special token's name); empty for ids that no text produces."""
        known = self._bytes.get(token)
        if known is None:
            piece = self._rules.id_to_token(token) if 0 <= token < 1 << 32 else None
            known = self._bytes[token] = b"" if piece is None else self._spelling.spell(piece)
        return known

    def id(self, token: str) -> int | None:
        """The id of a token by its name, such as "<|im_end|>"; None if there is none."""
        found = self._rules.token_to_id(token)
        return None if found is None else int(found)


class StreamDecoder:
    """Decodes token by token: what `push` and `flush` return, joined, is the text of all tokens pushed.

    Text is held back only while its last character is incomplete. `start`: the tokens begin a text, so a
    space that the encoder put there is dropped.
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special: bool = True, start: bool = False) -> None:
        self._tokenizer, self._skip = tokenizer, tokenizer.special_ids if skip_special else frozenset()
        self._strip = start and tokenizer._spelling.strip
        self._text = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """The text that became certain with this token, often empty."""
        data = b"" if token in self._skip else self._tokenizer.token_bytes(token)
        if data and self._strip:
            self._strip, data = False, data.removeprefix(b" ")
        return self._text.decode(data)

    def flush(self) -> str:
        """What was held back, when no more tokens come: U+FFFD for an incomplete character, or nothing."""
        return self._text.decode(b"", final=True)


def token_config(files: Mapping[str, bytes]) -> dict[str, Any]:
    """tokenizer_config.json as an object, empty when absent; CheckpointError if it is not JSON."""
    try:
        config = json.loads(files.get("tokenizer_config.json", b"{}"))
    except ValueError as error:
        raise CheckpointError("tokenizer_config.json is not readable JSON; fetch it again") from error
    if not isinstance(config, dict):
        raise CheckpointError("tokenizer_config.json is not a JSON object; fetch it again")
    return config


def token_text(value: Any) -> str | None:
    """A special token as tokenizer_config.json writes it: a string, or an object with `content`."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _added_bos(rules: tokenizers.Tokenizer, config: Mapping[str, Any]) -> int | None:
    """What goes in front of a text: as `add_bos_token` says, else as tokenizer.json's post-processor does."""
    put = rules.encode("").ids
    if config.get("add_bos_token") is False or (config.get("add_bos_token") is None and not put):
        return None
    name = token_text(config.get("bos_token"))
    found = None if name is None else rules.token_to_id(name)
    if found is None:
        return int(put[0]) if put else None
    return int(found)


def _spelling(decoder: Any) -> _Spelling:
    steps = decoder.get("decoders", [decoder]) if isinstance(decoder, dict) else []
    kinds = {step["type"] for step in steps}
    if "ByteLevel" in kinds:
        return _Spelling(byte_level=True)
    unknown = kinds - {"Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"}
    if unknown or not kinds:
        what = ", ".join(sorted(unknown)) or "none"
        raise CheckpointError(
            f"tokenizer.json has the unsupported decoder {what}; expected ByteLevel or SentencePiece"
        )
    replacements, strip = [], False
    for step in steps:
        if step["type"] == "Replace":
            replacements.append((step["pattern"].get("String", ""), step["content"]))
        elif step["type"] == "Metaspace":
            replacements.append((step["replacement"], " "))
            strip = step.get("prepend_scheme", "always") != "never"
        elif step["type"] == "Strip":
            strip = bool(step.get("start"))
    return _Spelling(False, tuple(pair for pair in replacements if pair[0]), "ByteFallback" in kinds, strip)


@lru_cache(maxsize=1)
def _byte_of_character() -> dict[str, int]:
    """The byte-level alphabet: printable Latin-1 is itself, other bytes follow from U+0100 on in order."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(0x100 + i): b for i, b in enumerate(others)}

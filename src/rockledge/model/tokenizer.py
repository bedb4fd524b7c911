"""Text to token ids and back, from an ordinary tokenizer.json, whole or token by token.

Encoding is the `tokenizers` package's. Decoding goes through the bytes of each token instead: a stream of
tokens can then be decoded exactly, and an API can report the bytes of a token that is not a whole character.
"""

import codecs
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import takewhile
from pathlib import Path
from typing import Any

import tokenizers

from rockledge.errors import CheckpointError
from rockledge.model.special_tokens import (
    ADDED_TOKENS,
    SPECIAL_TOKENS_MAP,
    TOKENIZER_CONFIG,
    all_special_tokens,
    declared_tokens,
    json_object,
)
from rockledge.model.text_bound import ASCII_SPACE, WIDE_SPACE, TextBound, text_bound

_FILES = ("tokenizer.json", TOKENIZER_CONFIG, SPECIAL_TOKENS_MAP, ADDED_TOKENS, "config.json")


@dataclass(frozen=True)
class _Spelling:
    """How the pieces of a vocabulary spell bytes.

    `byte_level`: every character of a piece stands for one byte. Otherwise pieces are UTF-8 text after
    `replacements`, and with `byte_pieces` a piece such as <0x0A> is one byte. `strip`: the first space of a
    text was added by the encoder.
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

    def __init__(
        self,
        rules: tokenizers.Tokenizer,
        spelling: _Spelling,
        around: tuple[tuple[int, ...], tuple[int, ...]],
        without_row: Mapping[str, int],
        bound: TextBound | None = None,
    ) -> None:
        self._rules, self._spelling, self._bound = rules, spelling, bound
        added = rules.get_added_tokens_decoder().values()
        self._drops_space = any(token.lstrip or token.rstrip for token in added)
        self._bytes: dict[int, bytes] = {}
        self.beginning, self.ending = around
        """Tokens that texts begin and end with, as tokenizer.json's post-processor puts them there; mostly
        one or none. Only a whole text gets its ending: others are there to be continued."""
        self.without_row = without_row
        """Added tokens (text to id) that the model has no row for; their text is read as any other."""
        self.special_ids = frozenset(i for i, t in rules.get_added_tokens_decoder().items() if t.special)
        """Tokens that are signals, not text; decoding leaves them out."""

    @classmethod
    def from_files(cls, files: Mapping[str, bytes], rows: int | None = None) -> "Tokenizer":
        """From the contents of tokenizer.json and the files beside it that declare further tokens.

        `rows` of the embedding limit the ids; without it config.json's `vocab_size` does, where that is among
        the files. Raises CheckpointError when tokenizer.json is missing, damaged, decodes in an unknown way,
        or has ordinary pieces beyond the rows.
        """
        if "tokenizer.json" not in files:
            raise CheckpointError(
                "there is no tokenizer.json beside the model; copy it from the original checkpoint"
            )
        rows = _rows(files) if rows is None else rows
        try:
            text = files["tokenizer.json"].decode()
            rules, content = tokenizers.Tokenizer.from_str(text), json.loads(text)
            without_row = {} if rows is None else _remove_without_row(content, rows)
            if without_row:
                rules = tokenizers.Tokenizer.from_str(json.dumps(content))
        except CheckpointError:
            raise
        except Exception as error:  # the package raises nothing more specific
            raise CheckpointError(
                f"tokenizer.json cannot be used ({str(error)[:200]}); fetch it again"
            ) from error
        rules.no_truncation()
        rules.no_padding()
        without_row |= _declare(rules, files, rows, without_row.keys())
        # As transformers: names of special tokens are then read as ordinary text.
        rules.encode_special_tokens = json_object(files, TOKENIZER_CONFIG).get("split_special_tokens") is True
        return cls(
            rules,
            _spelling(content.get("decoder")),
            _around(content.get("post_processor")),
            without_row,
            text_bound(content, _byte_of_character()),
        )

    @classmethod
    def load(cls, directory: str | Path) -> "Tokenizer":
        """From the tokenizer files in a directory."""
        paths = [Path(directory) / name for name in _FILES]
        return cls.from_files({path.name: path.read_bytes() for path in paths if path.is_file()})

    @property
    def bos(self) -> int | None:
        """The first of the tokens that texts begin with; None when there are none."""
        return self.beginning[0] if self.beginning else None

    @property
    def size(self) -> int:
        """Number of tokens, added ones included; a model's embedding may have more rows."""
        return int(self._rules.get_vocab_size(with_added_tokens=True))

    @property
    def puts_space(self) -> bool:
        """Whether a space is put in front of texts, as SentencePiece does."""
        return self._spelling.strip

    def added_tokens(self) -> dict[int, tokenizers.AddedToken]:
        """Tokens by id that are recognised before a text is split, special ones among them; none where the
        tokenizer itself reads the names of special tokens as text."""
        return {} if self._rules.encode_special_tokens else dict(self._rules.get_added_tokens_decoder())

    def rules_text(self) -> str:
        """What a tokenizer.json with these rules holds."""
        return str(self._rules.to_str())

    def encode(self, text: str, bos: bool) -> list[int]:
        """Token ids. Special tokens named in the text are recognised.

        `bos` prepends the tokens that texts of this model begin with: true for plain text, false for a
        rendered chat template, which writes its own.
        """
        # Lone surrogates, which JSON can carry, have no UTF-8; they become question marks.
        ids = self._rules.encode(text.encode(errors="replace").decode(), add_special_tokens=False).ids
        return [*self.beginning, *ids] if bos else list(ids)

    def encode_plain(self, text: str) -> list[int]:
        """Token ids of a text that begins with it: names of special tokens are text like any other."""
        plain = text.encode(errors="replace").decode()
        return list(self._plain_rules.encode(plain, add_special_tokens=False).ids)

    def encode_within(self, text: str, *, plain: bool = True) -> list[int]:
        """Token ids of text in the middle of another one, in front of which no space is put. `plain`: names
        of special tokens are text like any other."""
        rules = self._plain_rules if plain else self._rules
        whole = text.encode(errors="replace").decode()
        if not self._spelling.strip:
            ids: list[int] = rules.encode(whole, add_special_tokens=False).ids
            return ids
        # Behind a character that no token joins with the text; which one that is depends on the text.
        for front in "\n\0|a0":
            found = self._behind(front, whole, rules)
            if found is not None:
                return found
        return [i for byte in whole.encode() if (i := self.id(f"<0x{byte:02X}>")) is not None]

    def _behind(self, front: str, text: str, rules: tokenizers.Tokenizer) -> list[int] | None:
        """The tokens of `text` after those of `front`; None where a token has some of both."""
        ids: list[int] = rules.encode(front + text, add_special_tokens=False).ids
        head = b""
        for count, token in enumerate(ids, 1):
            head += self.token_bytes(token)
            if head.removeprefix(b" ") == front.encode():
                rest = ids[count:]
                return rest if b"".join(map(self.token_bytes, rest)) == text.encode() else None
        return None

    @cached_property
    def _plain_rules(self) -> tokenizers.Tokenizer:
        rules = tokenizers.Tokenizer.from_str(self._rules.to_str())
        rules.encode_special_tokens = True
        return rules

    def least_tokens(self, text: str) -> int:
        """No encoding of `text` has fewer tokens: its bytes over those of the longest token, 0 when the
        encoder may drop any amount of it."""
        if self._bound is None or len(text) < self.longest_token:
            return 0
        dropped = self._bound.dropped + (ASCII_SPACE if self._drops_space else b"")
        kept = len(text.encode(errors="replace").translate(None, dropped))
        if self._drops_space:
            kept -= sum(text.count(space) * _utf8_length(space) for space in WIDE_SPACE)
        return kept // (self._bound.factor * self.longest_token)

    @cached_property
    def longest_token(self) -> int:
        """Bytes of the longest token."""
        longest = 1
        for piece in sorted(self._rules.get_vocab(with_added_tokens=True), key=_utf8_length, reverse=True):
            if _utf8_length(piece) <= longest:  # spelled out it is not longer
                break
            longest = max(longest, len(self._spelling.spell(piece)))
        return longest

    def encode_whole(self, text: str, *, plain: bool = False) -> list[int]:
        """Token ids of a text that nothing continues, as a model that makes embeddings reads it: with what
        texts of this model begin and end with. `plain`: names of special tokens are text like any other."""
        ids = self.encode_plain(text) if plain else self.encode(text, bos=False)
        return [*self.beginning, *ids, *self.ending]

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """The text of a whole sequence; bytes that are not UTF-8 become U+FFFD."""
        stream = StreamDecoder(self, skip_special=skip_special, start=True)
        return "".join([*(stream.push(i) for i in ids), stream.flush()])

    def stream(self, shown: Collection[int] = ()) -> "StreamDecoder":
        """A decoder for tokens that continue a text; special tokens that are `shown` are text in it."""
        return StreamDecoder(self, shown=shown)

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
    space that the encoder put there is dropped. `shown`: special tokens that are text all the same.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        skip_special: bool = True,
        start: bool = False,
        shown: Collection[int] = (),
    ) -> None:
        self._tokenizer = tokenizer
        self._skip = tokenizer.special_ids.difference(shown) if skip_special else frozenset()
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


def _rows(files: Mapping[str, bytes]) -> int | None:
    size = json_object(files, "config.json").get("vocab_size")
    return size if isinstance(size, int) else None


def _remove_without_row(content: dict[str, Any], rows: int) -> dict[str, int]:
    """Takes added tokens without a row out of the contents of a tokenizer.json; returns them.

    Such tokens exist, mostly for padding, and are rarely used. An ordinary piece, however, can come from
    ordinary text: CheckpointError.
    """
    added = content.get("added_tokens") or []
    beyond = {token["content"]: int(token["id"]) for token in added if token["id"] >= rows}
    pieces = content["model"]["vocab"]
    # A list of [piece, score] counts its ids.
    ids = pieces if isinstance(pieces, dict) else {entry[0]: i for i, entry in enumerate(pieces)}
    outside = {piece: i for piece, i in ids.items() if i >= rows}
    if lost := outside.keys() - beyond.keys():
        piece = min(lost, key=outside.__getitem__)
        raise CheckpointError(
            f"tokenizer.json gives the piece {piece[:40]!r} the id {outside[piece]}, but the model has rows "
            f"for 0 to {rows - 1} only; use the tokenizer that belongs to these weights"
        )
    if outside:
        content["model"]["vocab"] = (
            {piece: i for piece, i in pieces.items() if i < rows}
            if isinstance(pieces, dict)
            else pieces[:rows]
        )
    content["added_tokens"] = [token for token in added if token["id"] < rows]
    return beyond


def _declare(
    rules: tokenizers.Tokenizer, files: Mapping[str, bytes], rows: int | None, cut: Collection[str]
) -> dict[str, int]:
    """Adds what the files beside tokenizer.json declare, as transformers does, but not what was `cut` from
    it; returns what has no row.

    A declared token replaces one of tokenizer.json with other flags; a special token that no file declares
    is added too.
    """
    held = {repr(token) for token in rules.get_added_tokens_decoder().values()}
    declared = [token for token in declared_tokens(files).values() if token.content not in cut]
    tokens = [token for token in declared if repr(token) not in held]
    signals = {token.content: token for token in all_special_tokens(files) if token.content not in cut}
    for token in tokens:
        token.special = token.special or token.content in signals
    known = {token.content for token in (*rules.get_added_tokens_decoder().values(), *tokens)}
    tokens += [token for content, token in signals.items() if content not in known]
    without_row: dict[str, int] = {}
    for token in tokens:
        # The package gives a new token the next id, whatever the declaration says.
        new = max(rules.get_vocab_size(False), 1 + max(rules.get_added_tokens_decoder(), default=-1))
        new += len(without_row)
        if rules.token_to_id(token.content) is None and rows is not None and new >= rows:
            without_row[token.content] = new
        else:
            rules.add_tokens([token])
    return without_row


def _around(processor: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids that a post-processor of tokenizer.json puts in front of one text and after it."""
    kind = processor["type"] if isinstance(processor, dict) else None
    if kind == "Sequence":
        front: tuple[int, ...] = ()
        back: tuple[int, ...] = ()
        for step in processor["processors"]:
            before, after = _around(step)
            front, back = (*before, *front), (*back, *after)
        return front, back
    if kind in ("BertProcessing", "RobertaProcessing"):
        return (int(processor["cls"][1]),), (int(processor["sep"][1]),)
    if kind != "TemplateProcessing":
        return (), ()
    pieces, tokens = processor["single"], processor["special_tokens"]

    def ids(run: Iterable[Any]) -> Iterator[int]:
        for piece in run:
            yield from map(int, tokens[piece["SpecialToken"]["id"]]["ids"])

    ending = list(takewhile(_is_special, reversed(pieces)))
    return tuple(ids(takewhile(_is_special, pieces))), tuple(ids(reversed(ending)))


def _utf8_length(piece: str) -> int:
    return len(piece.encode(errors="replace"))


def _is_special(piece: Mapping[str, Any]) -> bool:
    return "SpecialToken" in piece


def _spelling(decoder: Any) -> _Spelling:
    steps = decoder.get("decoders", [decoder]) if isinstance(decoder, dict) else []
    kinds = {step["type"] for step in steps}
    if "ByteLevel" in kinds:
        return _Spelling(byte_level=True)
    unknown = kinds - {"Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"}
    if unknown or not kinds:
        what = ", ".join(sorted(unknown)) or "none"
        raise CheckpointError(
            f"tokenizer.json has the unsupported decoder {what}, expected ByteLevel or SentencePiece"
        )
    replacements, strip = [], False
    for step in steps:
        if step["type"] == "Replace":
            if "String" not in step["pattern"]:
                raise CheckpointError(
                    "tokenizer.json has a decoder that replaces by a regular expression, which is not "
                    "supported; expected a plain string"
                )
            replacements.append((step["pattern"]["String"], step["content"]))
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

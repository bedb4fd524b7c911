"""Calibration text as token sequences of one length, each beginning as the model's own sequences do."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rockledge.errors import UsageError
from rockledge.model.chat import ChatTemplate
from rockledge.model.tokenizer import Tokenizer
from rockledge.quantize.texts import default_calibration

# Characters read for every token wanted: more than any tokenizer packs into one on average.
_CHARACTERS_PER_TOKEN = 8

# Sequences kept back to measure the result on.
_HELD_OUT = 4


@dataclass(frozen=True)
class Calibration:
    """`sequences` and `held_out` are token ids int64 [S, T] that share nothing; `sha256` is of the
    documents; `notes` are sentences for the report."""

    sequences: npt.NDArray[np.int64]
    held_out: npt.NDArray[np.int64]
    sha256: str
    notes: tuple[str, ...] = ()


def calibration_for(
    files: dict[str, bytes], path: Path | None, *, tokens: int, length: int, seed: int, force: bool = False
) -> Calibration:
    """Calibration text for the model with these small `files`: about `tokens` tokens in sequences of
    `length`, from a file or (None) the built-in mix. UsageError when the text is shorter than that; with
    `force` it may be as short as two sequences.
    """
    tokenizer, chat = Tokenizer.from_files(files), ChatTemplate.from_files(files)
    if path is None:
        documents = default_calibration(
            None if chat is None else lambda turns: chat.render(turns, add_generation_prompt=False)
        )
    else:
        documents = read_calibration(path, chat)
    beginning = tokenizer.encode("", bos=True)
    found = calibration_sequences(
        documents,
        tokenizer,
        bos=beginning[0] if beginning else None,
        tokens=tokens + _HELD_OUT * length,
        length=length,
        seed=seed,
    )
    kept = min(_HELD_OUT, len(found) // 2)
    wanted = max(1, tokens // length) + _HELD_OUT
    short = (
        f"The calibration text makes {found.size} tokens, but {wanted * length} are needed "
        f"({(wanted - _HELD_OUT) * length} to calibrate on, {_HELD_OUT * length} to measure on)"
    )
    if kept < 1:
        raise UsageError(f"{short}; give a longer text.")
    if len(found) < wanted and not force:
        raise UsageError(f"{short}; give a longer text, or go on with this one by --force.")
    notes = (f"{short}.",) if len(found) < wanted else ()
    digest = hashlib.sha256("\0".join(documents).encode()).hexdigest()
    return Calibration(found[kept:], found[:kept], digest, notes)


def read_calibration(path: Path, chat: ChatTemplate | None) -> list[str]:
    """The documents of a calibration file: a text file is one; a .jsonl file has one object a line with
    `text`, or with `messages`, which the chat template renders. UsageError names the line that has neither.
    """
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The calibration file {path} could not be read as UTF-8 text ({error}).") from error
    if path.suffix != ".jsonl":
        return [content]
    documents = []
    for number, line in enumerate(content.splitlines(), start=1):
        if line.strip():
            documents.append(_document(path, number, line, chat))
    return documents


def _document(path: Path, number: int, line: str, chat: ChatTemplate | None) -> str:
    try:
        entry = json.loads(line)
    except json.JSONDecodeError as error:
        raise UsageError(
            f"Line {number} of {path} is not JSON ({error}); write one object a line."
        ) from error
    if isinstance(entry, dict) and isinstance(entry.get("text"), str):
        return str(entry["text"])
    if isinstance(entry, dict) and isinstance(entry.get("messages"), list) and chat is not None:
        return chat.render(entry["messages"], add_generation_prompt=False)
    raise UsageError(
        f'Line {number} of {path} has neither "text" nor (for a model with a chat template) "messages"; '
        "add one."
    )


def calibration_sequences(
    documents: Sequence[str], tokenizer: Tokenizer, *, bos: int | None, tokens: int, length: int, seed: int
) -> npt.NDArray[np.int64]:
    """Token ids int64 [sequences, length] drawn evenly from `documents`, about `tokens` in all.

    Every sequence starts with `bos` when there is one. Documents shorter than a sequence are joined; where
    some are too short for their share, the others give more. Where the documents hold less than asked for,
    all of it is used; UsageError when that is less than one sequence.
    """
    body = length - (bos is not None)
    wanted = max(1, tokens // length)
    share = -(-wanted // max(1, len(documents))) * body
    generator = np.random.default_rng(seed)
    pieces, left_out = _pieces(documents, tokenizer, body, share, generator)
    while len(pieces) < wanted and left_out:
        share *= 2
        generator = np.random.default_rng(seed)
        pieces, left_out = _pieces(documents, tokenizer, body, share, generator)
    if not pieces:
        have = sum(len(tokenizer.encode(document, bos=False)) for document in documents)
        raise UsageError(
            f"The calibration text has {have} tokens, but one sequence needs {body}; give a longer text."
        )
    chosen = [pieces[i] for i in generator.permutation(len(pieces))[:wanted]]
    sequences = np.stack(chosen)
    if bos is not None:
        sequences = np.concatenate([np.full((len(sequences), 1), bos, np.int64), sequences], axis=1)
    return sequences


def _pieces(
    documents: Sequence[str],
    tokenizer: Tokenizer,
    body: int,
    share: int,
    generator: np.random.Generator,
) -> tuple[list[npt.NDArray[np.int64]], bool]:
    """Runs of `body` tokens from a random stretch of at most `share` tokens of each document, and whether
    any document has more."""
    pieces: list[npt.NDArray[np.int64]] = []
    rest: list[int] = []
    left_out = False
    for document in documents:
        most = share * _CHARACTERS_PER_TOKEN
        start = int(generator.integers(0, max(1, len(document) - most)))
        ids = tokenizer.encode(document[start : start + most], bos=False)
        left_out |= len(document) > most or len(ids) > share
        whole = len(ids[:share]) // body * body
        pieces.extend(np.array(ids[:whole], np.int64).reshape(-1, body))
        rest.extend(ids[whole:share])
    whole = len(rest) // body * body
    pieces.extend(np.array(rest[:whole], np.int64).reshape(-1, body))
    return pieces, left_out

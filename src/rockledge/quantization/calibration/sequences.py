"""Calibration text as token sequences of one length, each beginning as the model's own sequences do."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rockledge.errors import UsageError
from rockledge.model.chat import ChatTemplate
from rockledge.model.stored_messages import stored_list, stored_messages
from rockledge.model.tokenizer import Tokenizer
from rockledge.quantization.calibration.conversations import ConversationRenderer
from rockledge.quantization.calibration.texts import default_calibration

# Characters read for every token wanted: more than any tokenizer packs into one on average.
_CHARACTERS_PER_TOKEN = 8

# Sequences kept back to measure the result on.
HELD_OUT = 4


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
    `length`, from a file or (None) the built-in mix.

    UsageError when the text of a file is shorter than that; with `force` it may be as short as two sequences.
    The built-in mix suits every model: conversations are fitted to its template, and where its tokenizer
    makes little or nothing of the mix, `notes` say so.
    """
    tokenizer, chat = Tokenizer.from_files(files), ChatTemplate.from_files(files)
    documents, notes = _built_in(chat) if path is None else read_calibration(path, chat)
    # A context of a few tokens has no room for all that a text begins with.
    beginning = tokenizer.beginning[: max(0, length - 2)]
    wanted = max(1, tokens // length) + HELD_OUT

    needed = wanted * length
    try:
        found = calibration_sequences(
            documents, tokenizer, beginning=beginning, tokens=needed, length=length, seed=seed
        )
    except UsageError as error:
        if path is not None:
            raise UsageError(_with_notes(notes, str(error))) from error
        found = np.zeros((0, length), np.int64)
    if path is None and len(found) < 2:
        notes.append(
            f"This tokenizer makes only {found.size} tokens of the built-in calibration text, so random "
            "tokens were calibrated on; give text of the model's own kind by --calibration."
        )
        found = _random_sequences(tokenizer, beginning, (wanted, length), seed)
    kept = min(HELD_OUT, len(found) // 2)
    short = (
        f"the calibration text makes {found.size} tokens, but {needed} are needed "
        f"({(wanted - HELD_OUT) * length} to calibrate on, {HELD_OUT * length} to measure on)"
    )
    if kept < 1:
        raise UsageError(_with_notes(notes, f"{short}; give a longer text"))
    if len(found) < wanted and not force and path is not None:
        raise UsageError(_with_notes(notes, f"{short}; give a longer text, or use this one with --force"))
    if len(found) < wanted:
        notes.append(f"{short[0].upper()}{short[1:]}.")
    digest = hashlib.sha256("\0".join(documents).encode()).hexdigest()
    return Calibration(found[kept:], found[:kept], digest, tuple(notes))


def _built_in(chat: ChatTemplate | None) -> tuple[list[str], list[str]]:
    """The built-in documents, and what had to be changed in them."""
    if chat is None:
        return default_calibration(), []
    renderer, numbers = ConversationRenderer(chat), count(1)
    documents = default_calibration(lambda turns: renderer.text(next(numbers), turns))
    return documents, renderer.notes("Built-in conversation", "Built-in conversations")


def read_calibration(path: Path, chat: ChatTemplate | None) -> tuple[list[str], list[str]]:
    """The documents of a calibration file, and notes on conversations in it that were folded or left out.

    A text file is one document; a .jsonl file has one object a line with `text`, or with `messages` (and
    perhaps `tools` and `documents`), which the chat template renders. UsageError names the line that has
    neither.
    """
    try:
        content = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"the calibration file {path} cannot be read as UTF-8 text ({error}); give another one"
        ) from error
    if path.suffix != ".jsonl":
        return [content], []
    renderer = None if chat is None else ConversationRenderer(chat)
    documents: list[str] = []
    # Not `splitlines`: JSON may hold line separators other than this one.
    for number, line in enumerate(content.split("\n"), start=1):
        if line.strip() and (text := _document(path, number, line, renderer)) is not None:
            documents.append(text)
    notes = [] if renderer is None else renderer.notes(f"{path.name}: line", f"{path.name}: lines")
    if not documents:
        raise UsageError(_with_notes(notes[:1], f"{path} holds no text to calibrate on; give another one"))
    return documents, notes


def _document(path: Path, number: int, line: str, renderer: ConversationRenderer | None) -> str | None:
    """The text of one line; None where the chat template refuses it."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"line {number} of {path} is not JSON ({error}); write one object a line") from error
    if isinstance(entry, dict) and isinstance(entry.get("text"), str):
        return str(entry["text"])
    if isinstance(entry, dict) and isinstance(entry.get("messages"), list) and renderer is not None:
        place = f"line {number} of {path}"
        given = {key: stored_list(entry, key, place) for key in ("tools", "documents") if entry.get(key)}
        return renderer.text(number, stored_messages(entry, place), **given)
    raise UsageError(
        f'line {number} of {path} has neither "text" nor (for a model with a chat template) "messages"; '
        "add one"
    )


def _random_sequences(
    tokenizer: Tokenizer, beginning: Sequence[int], shape: tuple[int, int], seed: int
) -> npt.NDArray[np.int64]:
    """Sequences int64 of `shape` that begin as given and go on with tokens drawn from all that are text."""
    ids = [i for i in range(tokenizer.size) if i not in tokenizer.special_ids and tokenizer.token_bytes(i)]
    found = np.random.default_rng(seed).choice(np.array(ids or [0], np.int64), shape)
    found[:, : len(beginning)] = beginning
    return found


def calibration_sequences(
    documents: Sequence[str],
    tokenizer: Tokenizer,
    *,
    beginning: Sequence[int] = (),
    tokens: int,
    length: int,
    seed: int,
) -> npt.NDArray[np.int64]:
    """Token ids int64 [sequences, length] drawn evenly from `documents`, about `tokens` in all.

    Every sequence starts with `beginning`. Documents shorter than a sequence are joined; where
    some are too short for their share, the others give more. Where the documents hold less than asked for,
    all of it is used; UsageError when that is less than one sequence.
    """
    body = length - len(beginning)
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
            f"the calibration text has {have} tokens, but one sequence needs {body}; give a longer text"
        )
    chosen = [pieces[i] for i in generator.permutation(len(pieces))[:wanted]]
    sequences = np.stack(chosen)
    front = np.tile(np.array(beginning, np.int64), (len(sequences), 1))
    return np.concatenate([front, sequences], axis=1)


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


def _with_notes(notes: Sequence[str], sentence: str) -> str:
    """An error's sentence and, in brackets, what was noted before it."""
    return sentence + (f" ({' '.join(notes)})" if notes else "")

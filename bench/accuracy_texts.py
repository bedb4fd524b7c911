"""The texts of the accuracy table: what is scored, what llama.cpp's importance matrix sees, and that the two
share nothing.

Scored is the beginning of Alice and as many characters of the Debian handbook, joined into one file, so that
one run of every engine gives all figures. Calibration is the built-in mix for both engines.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from bench.models import UnavailableError, alice, cache, handbook
from rockledge.eval.text import read_text
from rockledge.eval.windows import cut_windows
from rockledge.model.chat import ChatTemplate
from rockledge.model.tokenizer import Tokenizer
from rockledge.quantization.calibration.texts import default_calibration

WINDOW = 512
SPAN = 50
_STEP = 2000  # characters


def evaluation(tokenizer: Tokenizer, windows: int) -> tuple[Path, list[list[int]]]:
    """The text file that gives `windows` windows (at least) with this tokenizer, and its first `windows`."""
    sources = [read_text(source()) for source in (alice, handbook)]
    characters = _STEP
    while True:
        text = "".join(source[:characters] for source in sources)
        tokens = tokenizer.encode(text, bos=True)
        if len(tokens) >= windows * WINDOW:
            return _kept("evaluation", text), cut_windows(tokens, WINDOW, windows, tokenizer.bos)
        if characters > max(map(len, sources)):
            raise UnavailableError(
                f"the texts make {len(tokens) // WINDOW} windows of {WINDOW} tokens, expected {windows}"
            )
        # Most of the way at once, the rest in steps.
        wanted = characters * windows * WINDOW / len(tokens)
        characters = max(characters + _STEP, int(0.97 * wanted) // _STEP * _STEP)


def calibration(files: dict[str, bytes], limit: int | None = None) -> tuple[Path, list[int]]:
    """The built-in mix, conversations in the model's own format, as one text file and as tokens; of every
    document the beginning, so that there are about `limit` tokens."""
    chat = ChatTemplate.from_files(files)
    documents = default_calibration(
        None if chat is None else lambda turns: chat.render(turns, add_generation_prompt=False)
    )
    tokenizer = Tokenizer.from_files(files)
    text = "\n\n".join(documents)
    tokens = tokenizer.encode(text, bos=True)
    if limit is not None and limit < len(tokens):
        share = limit / len(tokens)
        text = "\n\n".join(document[: int(share * len(document))] for document in documents)
        tokens = tokenizer.encode(text, bos=True)
    return _kept("calibration", text), tokens


def shared_span(first: Sequence[int], second: Sequence[int], length: int = SPAN) -> tuple[int, ...] | None:
    """A run of `length` tokens that is in both, or None."""
    seen = {tuple(first[i : i + length]) for i in range(len(first) - length + 1)}
    runs = (tuple(second[i : i + length]) for i in range(len(second) - length + 1))
    return next((run for run in runs if run in seen), None)


def _kept(kind: str, text: str) -> Path:
    content = text.encode()
    path = cache() / "texts" / f"{kind}-{hashlib.sha256(content).hexdigest()[:12]}.txt"
    path.parent.mkdir(exist_ok=True)
    if not path.exists():
        path.write_bytes(content)
    return path

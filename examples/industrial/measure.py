"""What one model of the chain knows: losses on held-out pages and on general prose, the domain cloze, logic
probes; and of an artifact its size and how fast it writes here."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from bench.models import alice, handbook
from examples.industrial.cloze import items, terms_of
from examples.industrial.texts import GENERAL, HELD_OUT, LEARN
from rockledge.eval.perplexity import negative_log_likelihood
from rockledge.eval.probes.families import all_probes
from rockledge.eval.probes.score import ProbeTokens, answer_probes, tokenize_probes
from rockledge.eval.text import read_text
from rockledge.eval.windows import Logits, cut_windows, log_softmax, scored_logits
from rockledge.model.checkpoint import open_checkpoint
from rockledge.model.tokenizer import Tokenizer
from rockledge.quantization.float_model.reference_logits import ReferenceLogits
from rockledge.runtime.engine import Engine
from rockledge.runtime.speed import measure_decode

WINDOW = 512
DECODED, AFTER, RUNS = 64, 128, 5  # tokens written in a run, after so many, and how often


@dataclass(frozen=True)
class Amount:
    """How much is measured: windows of 512 tokens of the domain and of each general text, cloze items, and
    probes of each family."""

    domain: int = 40
    general: int = 10
    cloze: int = 440
    probes: int = 12


@dataclass(frozen=True)
class Measured:
    """`domain` and `general` are losses in nats a token by window; `cloze` and `probes` say which answers
    were right. `size` is in bytes; `tok_s` is None where the model has no artifact."""

    domain: list[float]
    general: list[float]
    cloze: list[bool]
    probes: list[bool]
    size: int
    tok_s: float | None


def measured(model: Path, work: Path, amount: Amount, kept: Path, *, artifact: bool) -> Measured:
    """The numbers of `model`, which `kept` holds from then on."""
    if kept.is_file():
        return Measured(**json.loads(kept.read_text(encoding="utf-8")))
    found = _artifact(model, work, amount) if artifact else _checkpoint(model, work, amount)
    partial = kept.with_suffix(".partial")
    partial.write_text(json.dumps(asdict(found)), encoding="utf-8")
    partial.replace(kept)
    return found


def _checkpoint(model: Path, work: Path, amount: Amount) -> Measured:
    checkpoint = open_checkpoint(model)
    questions = _questions(Tokenizer.from_files(checkpoint.files()), work, amount)
    sequences = [
        *questions.domain,
        *questions.general,
        *questions.cloze.sequences,
        *questions.probes.sequences,
    ]
    logits = ReferenceLogits(checkpoint, [list(one) for one in dict.fromkeys(map(tuple, sequences))])
    size = sum(file.stat().st_size for file in model.glob("*.safetensors"))
    return _answered(logits, questions, size, None)


def _artifact(model: Path, work: Path, amount: Amount) -> Measured:
    with Engine.load(model, prefixes=False) as engine:
        questions = _questions(engine.tokenizer, work, amount)
        speed = measure_decode(engine, 1, AFTER, DECODED, RUNS).tok_s
        return _answered(engine.logits, questions, engine.artifact.tensor_bytes, speed)


@dataclass(frozen=True)
class _Questions:
    domain: list[list[int]]
    general: list[list[int]]
    cloze: ProbeTokens
    probes: ProbeTokens


def _questions(tokenizer: Tokenizer, work: Path, amount: Amount) -> _Questions:
    def encoded(text: str) -> list[int]:
        return tokenizer.encode(text, bos=True)

    def windows(text: str, most: int) -> list[list[int]]:
        return cut_windows(encoded(text), WINDOW, most, tokenizer.bos)

    held_out = texts_of(work / HELD_OUT)
    terms = terms_of(texts_of(work / LEARN), texts_of(work / GENERAL))
    return _Questions(
        windows("\n\n".join(held_out), amount.domain),
        [one for text in (alice, handbook) for one in windows(read_text(text()), amount.general)],
        tokenize_probes(items(held_out, terms, amount.cloze), encoded),
        tokenize_probes(all_probes(amount.probes), encoded),
    )


def _answered(model: Logits, questions: _Questions, size: int, tok_s: float | None) -> Measured:
    cloze, probes = (
        [
            answer == probe.answer
            for answer, probe in zip(answer_probes(model, tokens), tokens.probes, strict=True)
        ]
        for tokens in (questions.cloze, questions.probes)
    )
    domain, general = (
        [_loss(model, window) for window in windows] for windows in (questions.domain, questions.general)
    )
    return Measured(domain, general, cloze, probes, size, tok_s)


def _loss(model: Logits, window: Sequence[int]) -> float:
    """Of the second half of a window, nats a token."""
    first = len(window) // 2
    scored = log_softmax(scored_logits(model, window, first))
    return float(negative_log_likelihood(scored, np.array(window[first + 1 :])).mean())


def texts_of(path: Path) -> list[str]:
    """The documents of a file of JSON lines."""
    return [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").split("\n") if line]

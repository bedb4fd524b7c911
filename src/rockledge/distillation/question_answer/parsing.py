"""Questions and answers in what a teacher wrote, which often is not quite the form it was asked for."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

NO_FORM = "not a question and an answer"
CUT_OFF = "cut off before its end"

# The labels, also in languages that a teacher may translate them to.
_QUESTION = "Question|Frage|Pregunta|Domanda|Pergunta|Вопрос|问题|問題|質問|问"
_ANSWER = "Answer|Response|Antwort|Respuesta|Réponse|Risposta|Resposta|Ответ|答案|回答|答"
_MARKS = r"[\s>*_#\-]*"
_LABEL = re.compile(
    # At the beginning of a line in any spelling and by one letter; within a line as capitalised words.
    rf"(?:^{_MARKS}(?:\d+[.)]\s*)?{_MARKS}(?:(?P<q>(?i:{_QUESTION})|Q)|(?P<a>(?i:{_ANSWER})|A))"
    rf"|(?<=[\s.?!。？！])\**(?:(?P<later_q>{_QUESTION})|(?P<later_a>{_ANSWER})))"
    r"\s*\d*\s*[*_]*\s*[:：]\s*[*_]*[ \t]*",
    re.MULTILINE,
)
_THOUGHT = re.compile(r"<think(?:ing)?>.*?</think(?:ing)?>", re.DOTALL)
_AFTER = re.compile(
    r"\n\s*(?:-{3,}|\*{3,}|<?/?passage\b|Passage\s*:|Note\s*:|Explanation\s*:)", re.IGNORECASE
)
_PARAGRAPH = re.compile(r"\n\s*\n(?!\s*(?:[-*+•`|]|\d+[.)]))")


@dataclass(frozen=True)
class Pair:
    """A question and its answer."""

    question: str
    answer: str


def parsed(output: str, ended: bool) -> tuple[list[Pair], list[str]]:
    """The pairs of an output, and why others of it are none. `ended`: the model ended it by itself, so its
    last answer is whole."""
    text = _THOUGHT.sub("", output)
    if "<think" in text:
        return [], [CUT_OFF]
    objects = [_of_object(found) for found in _json_objects(text)]
    if pairs := [pair for pair in objects if pair is not None]:
        return pairs, []
    labels = list(_LABEL.finditer(text))
    pairs, reasons = [], []
    asked: str | None = None
    for label, following in zip_longest(labels, labels[1:]):
        last = following is None
        said = text[label.end() : len(text) if following is None else following.start()]
        if label["q"] or label["later_q"]:
            if asked is not None:
                reasons.append(NO_FORM)
            asked = " ".join(_bare(said).split())
            continue
        if asked is None:
            continue
        answer, cut = _first_part(said)
        if last and not ended and not cut:
            reasons.append(CUT_OFF)
        elif asked and answer:
            pairs.append(Pair(asked, answer))
        else:
            reasons.append(NO_FORM)
        asked = None
    if asked is not None:
        reasons.append(NO_FORM if ended else CUT_OFF)
    if not pairs and not reasons:
        reasons.append(NO_FORM if ended else CUT_OFF)
    return pairs, reasons


def _first_part(said: str) -> tuple[str, bool]:
    """(an answer without what the teacher went on to say, whether something followed it)."""
    said = said.lstrip()
    ends = [found.start() for pattern in (_AFTER, _PARAGRAPH) if (found := pattern.search(said)) is not None]
    end = min(ends, default=len(said))
    return _bare(said[:end]), bool(said[end:].strip())


def _bare(text: str) -> str:
    """Without the marks and quotation marks around it."""
    text = text.strip().strip("*_").strip()
    if (
        len(text) > 1
        and (text[0], text[-1]) in (('"', '"'), ("“", "”"), ("«", "»"))
        and '"' not in text[1:-1]
    ):
        text = text[1:-1].strip()
    return text


def _json_objects(text: str) -> Iterator[Any]:
    """The JSON objects in a text that asks and answers by keys."""
    if '"question"' not in text.lower():
        return
    decoder, place = json.JSONDecoder(strict=False), 0
    while (place := text.find("{", place)) >= 0:
        try:
            found, place = decoder.raw_decode(text, place)
            yield found
        except (ValueError, RecursionError):
            place += 1


def _of_object(found: Any) -> Pair | None:
    if not isinstance(found, dict):
        return None
    by_name = {str(key).lower(): value for key, value in found.items()}
    question, answer = by_name.get("question"), by_name.get("answer")
    if not isinstance(question, str) or not isinstance(answer, str):
        return None
    pair = Pair(" ".join(_bare(question).split()), _bare(answer))
    return pair if pair.question and pair.answer else None

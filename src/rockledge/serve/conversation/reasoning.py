"""Thoughts before an answer: the marks that models put around them, and how texts are split there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rockledge.model.tokenizer import Tokenizer


@dataclass(frozen=True)
class Thoughts:
    """What thoughts begin and end with."""

    opening: str
    closing: str

    def opened_by(self, prompt: str) -> bool:
        """Whether a prompt ends within thoughts, as templates of models that always think make it."""
        return prompt.rstrip().endswith(self.opening.strip())

    def opened_in(self, text: str) -> bool:
        """Whether a text that is to be continued ends within thoughts."""
        return text.lstrip().startswith(self.opening) and self.closing not in text

    def split(self, text: str) -> tuple[str | None, str]:
        """The thoughts that a text begins with (None: it does not), and the rest."""
        rest = text.lstrip()
        if not rest.startswith(self.opening) or self.closing not in rest:
            return None, text
        thoughts, _, answer = rest[len(self.opening) :].partition(self.closing)
        return thoughts.strip(), answer.lstrip()


# The most usual first. Sources: the chat templates of DeepSeek-R1, Qwen3 and SmolLM3; Magistral; Seed-OSS;
# Command A Reasoning; Gemma 4; Granite 3.2.
MARKS = (
    Thoughts("<think>", "</think>"),
    Thoughts("[THINK]", "[/THINK]"),
    Thoughts("<seed:think>", "</seed:think>"),
    Thoughts("<|START_THINKING|>", "<|END_THINKING|>"),
    Thoughts("<|channel>thought", "<channel|>"),
    Thoughts("<thought>", "</thought>"),
    Thoughts("<reasoning>", "</reasoning>"),
    Thoughts("Here is my thought process:", "Here is my response:"),
)


def thoughts_of(sources: Iterable[str], tokenizer: Tokenizer) -> Thoughts | None:
    """The marks that the templates of a model name, or else those that its vocabulary has; None for a model
    that does not think."""
    text = "\n".join(sources)
    named = (marks for marks in MARKS if marks.closing in text or marks.opening in text)
    known = (marks for marks in MARKS if tokenizer.id(marks.opening) is not None)
    return next(named, next(known, None))

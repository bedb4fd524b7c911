"""The prompts that all models see: the built-in ones, or a file of the user's."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rockledge.errors import UsageError
from rockledge.eval.text import read_text
from rockledge.model.chat import ChatTemplate
from rockledge.model.tokenizer import Tokenizer

LONGEST = 128  # tokens of a prompt
MOST_TOKENS = 384  # of all prompts together

Prompt = str | list[dict[str, Any]]
"""A text to be continued, or the messages of a conversation to be answered."""

BUILT_IN: tuple[str, ...] = (
    "Water boils at a lower temperature on a mountain because the air pressure there is",
    "All birds have feathers. A penguin is a bird. Therefore a penguin",
    "def fibonacci(n):\n    if n < 2:\n        return n\n    return",
    "3 + 4 = 7\n12 + 9 = 21\n30 + 15 =",
    (
        "A gateway stands between a local network and the rest of the world. It collects what sensors "
        "measure, decides what is urgent, and passes on the rest when the line is free. When the line "
        "breaks, it"
    ),
    "What is the capital of France? Answer in one sentence.",
)
_AS_MESSAGE = 1  # how many of the last built-in prompts are put as messages, where there is a template


def read_prompts(path: Path) -> list[Prompt]:
    """A prompt a line; a line that is a JSON object has the prompt under `prompt`, or a conversation under
    `messages`. UsageError for a file without any, or a line that is neither."""
    prompts = [
        _prompt(line, f"line {number} of {path}")
        for number, line in enumerate(read_text(path).splitlines(), 1)
        if line.strip()
    ]
    if not prompts:
        raise UsageError(f"{path} has no prompts; write one a line")
    return prompts


def _prompt(line: str, where: str) -> Prompt:
    if not line.lstrip().startswith("{"):
        return line
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return line  # a text may begin with a brace
    messages = value.get("messages")
    if isinstance(messages, list) and messages and all(isinstance(one, dict) for one in messages):
        return messages
    if isinstance(value.get("prompt"), str) and value["prompt"]:
        return str(value["prompt"])
    raise UsageError(f"{where} has neither a text under 'prompt' nor a list of objects under 'messages'")


def built_in(chat: ChatTemplate | None) -> list[Prompt]:
    """The built-in prompts, as texts and, where the model converses, as messages."""
    texts = len(BUILT_IN) - (0 if chat is None else _AS_MESSAGE)
    asked: list[Prompt] = [[{"role": "user", "content": text}] for text in BUILT_IN[texts:]]
    return [*BUILT_IN[:texts], *asked]


def prompt_tokens(
    prompts: Sequence[Prompt], tokenizer: Tokenizer, chat: ChatTemplate | None, context: int, vocab: int
) -> tuple[list[list[int]], list[str]]:
    """The prompts as tokens, cut to `LONGEST` or what half the `context` holds, as many as come to
    `MOST_TOKENS`; and sentences about what was cut or left out. UsageError where nothing is left."""
    longest = max(1, min(LONGEST, context // 2))
    found: list[list[int]] = []
    notes, cut, refused = [], 0, 0
    for prompt in prompts:
        try:
            ids = _encoded(prompt, tokenizer, chat)
        except UsageError:
            refused += 1
            continue
        cut += len(ids) > longest
        if ids := [token for token in ids[:longest] if token < vocab]:
            found.append(ids)
    if refused:
        notes.append(f"{refused} of {len(prompts)} prompts were left out: the chat template refuses them.")
    if not found:
        raise UsageError("no prompt is left: the model's chat template refuses all of them; give texts")
    if cut:
        notes.append(f"{cut} of {len(prompts)} prompts were cut to their first {longest} tokens.")
    kept = _within(found)
    if len(kept) < len(found):
        notes.append(f"Of {len(found)} prompts the first {len(kept)} were used ({MOST_TOKENS} tokens).")
    return kept, notes


def _encoded(prompt: Prompt, tokenizer: Tokenizer, chat: ChatTemplate | None) -> list[int]:
    if isinstance(prompt, str):
        return tokenizer.encode(prompt, bos=True)
    if chat is None:
        raise UsageError("this model has no chat template; give a text instead of messages")
    return tokenizer.encode(chat.render(prompt), bos=False)


def _within(found: list[list[int]]) -> list[list[int]]:
    """The first ones, at least one, of `MOST_TOKENS` tokens in all."""
    kept, total = found[:1], len(found[0])
    for ids in found[1:]:
        total += len(ids)
        if total > MOST_TOKENS:
            break
        kept.append(ids)
    return kept

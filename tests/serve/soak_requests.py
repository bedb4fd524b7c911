"""What the soak asks for: random requests that have one right answer each, and bodies that have none."""

import json
import random
import string
from dataclasses import dataclass
from typing import Any

Body = dict[str, Any]
COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"


@dataclass(frozen=True)
class Asked:
    """A request whose answer is the same every time: greedy, or with a seed."""

    path: str
    body: Body


def requests(chance: random.Random, count: int) -> list[Asked]:
    """`count` requests of every kind. Some begin alike, so that they find each other's pages."""
    beginnings = [_text(chance, 60) for _ in range(3)]
    kinds = (_chat, _completion, _completion, _scoring)
    return [chance.choice(kinds)(chance, chance.choice(beginnings)) for _ in range(count)]


def _text(chance: random.Random, length: int) -> str:
    return "".join(chance.choice(string.ascii_lowercase + "  éß日") for _ in range(length))


def _prompt(chance: random.Random, beginning: str) -> str:
    own = _text(chance, chance.choice((1, 5, 20, 60, 120)))
    return beginning + own if chance.random() < 0.5 else own


def _sampling(chance: random.Random) -> Body:
    if chance.random() < 0.4:
        return {"temperature": 0}
    found: Body = {"temperature": round(chance.uniform(0.2, 1.5), 2), "seed": chance.randrange(1 << 32)}
    return found | chance.choice(({}, {"top_p": 0.8}, {"top_k": 5}, {"min_p": 0.05}, {"n": 2}))


def _rules(chance: random.Random) -> Body:
    """What changes the choice of tokens besides: nothing in most requests."""
    if chance.random() < 0.6:
        return {}
    rules: tuple[Body, ...] = (
        {"repetition_penalty": 1.3},
        {"presence_penalty": 0.7, "frequency_penalty": 0.3},
        {"logit_bias": {str(chance.randrange(300)): chance.choice((-100, 3))}},
        {"min_tokens": 1},
        {"stop_token_ids": [chance.randrange(300)]},
    )
    return chance.choice(rules)


def _chat(chance: random.Random, beginning: str) -> Asked:
    messages = [{"role": "user", "content": _prompt(chance, beginning)}]
    for _ in range(chance.choice((0, 0, 1))):
        messages += [
            {"role": "assistant", "content": _text(chance, 10)},
            {"role": "user", "content": _text(chance, 10)},
        ]
    body: Body = {"messages": messages, "max_tokens": chance.choice((1, 4, 20, 60))}
    body |= _sampling(chance) | _rules(chance)
    if chance.random() < 0.3:
        body |= {"logprobs": True, "top_logprobs": chance.choice((0, 3))}
    return Asked(CHAT, body)


def _completion(chance: random.Random, beginning: str) -> Asked:
    prompt: Any = _prompt(chance, beginning)
    if chance.random() < 0.3:
        prompt = [chance.randrange(3, 300) for _ in range(chance.choice((1, 33, 150)))]
    body: Body = {"prompt": prompt, "max_tokens": chance.choice((1, 8, 40, 100))}
    body |= _sampling(chance) | _rules(chance)
    if chance.random() < 0.3:
        body["logprobs"] = chance.choice((0, 2))
    if chance.random() < 0.3:
        body["ignore_eos"] = True
    if chance.random() < 0.2:
        body["stop"] = [chance.choice(string.ascii_lowercase)]
    return Asked(COMPLETIONS, body)


def _scoring(chance: random.Random, beginning: str) -> Asked:
    body = {"prompt": _prompt(chance, beginning), "max_tokens": 0, "echo": True, "logprobs": 1}
    return Asked(COMPLETIONS, body)


def malformed(chance: random.Random) -> tuple[str, bytes]:
    """An address and a body that is refused with 400 or 413: wrong types, beyond the context, too large, or
    not JSON at all."""
    good = json.dumps({"prompt": "a", "max_tokens": 2}).encode()
    wrong: tuple[Any, ...] = (
        {"prompt": "a", "max_tokens": "many"},
        {"prompt": {"a": 1}},
        {"prompt": [[]]},
        {"prompt": [1, 1 << 40]},
        {"prompt": "a", "temperature": -1},
        {"prompt": "a", "nonsense": True},
        {"prompt": [7] * 4000},
        {"prompt": _text(chance, 50) * 200},
        [],
        None,
    )
    path = chance.choice((COMPLETIONS, CHAT))
    kind = chance.randrange(4)
    if kind == 0:
        return path, good[: chance.randrange(len(good))]
    if kind == 1:
        return path, chance.randbytes(chance.randrange(1, 400))
    if kind == 2 and chance.random() < 0.2:
        return path, b'{"prompt": "' + b"a" * (chance.choice((5, 33)) << 20) + b'"}'
    return path, json.dumps(chance.choice(wrong)).encode()

"""Whether an artifact answers as the float model does: greedy continuations of eight prompts, token by token.

    python -m bench.greedy ARTIFACT MODEL [--tokens 32]

The engine continues each prompt. One forward pass of the float reference over prompt and answer then says
at every place which token it would have taken; up to the first difference both have read the same, so later
ones do not count. The margin there is how much more probable the float model finds its own choice, in nats.
Prints a table and writes bench/results/greedy.json.
"""

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from bench.machine import commit
from rockledge.errors import RockledgeError
from rockledge.model.checkpoint import Checkpoint, open_checkpoint
from rockledge.quantization.float_model.forward import forward
from rockledge.runtime.engine import Engine

RESULTS = Path(__file__).parent / "results"
PROMPTS = (
    "The capital of France is",
    "Water boils when",
    "A gateway is a device that",
    "Once upon a time there was a",
    "The three laws of motion are",
    "def fibonacci(n):\n",
    "To make bread you need flour,",
    "In the year 1969",
)


@dataclass(frozen=True)
class Answer:
    """`same`: tokens before the first difference; `margin` there, in nats, None where there is none."""

    prompt: str
    text: str
    tokens: int
    same: int
    margin: float | None


def answers(artifact: Path, checkpoint: Checkpoint, tokens: int) -> list[Answer]:
    """The engine's greedy answers, compared."""
    with Engine.load(artifact, npu="off") as engine:
        prompts = [engine.tokenizer.encode(prompt, bos=True) for prompt in PROMPTS]
        drawn = [
            [id for piece in engine.generate(prompt, max_tokens=tokens, ignore_eos=True) for id in piece.ids]
            for prompt in prompts
        ]
        texts = [engine.tokenizer.decode(ids) for ids in drawn]
    rows = [prompt + ids for prompt, ids in zip(prompts, drawn, strict=True)]
    longest = max(map(len, rows))
    with torch.no_grad():  # what stands behind a row's end does not reach what is before it
        logits = forward(checkpoint, torch.tensor([row + [0] * (longest - len(row)) for row in rows]))
    found = []
    for prompt, ids, text, own, scores in zip(PROMPTS, drawn, texts, prompts, logits, strict=True):
        ahead = torch.log_softmax(scores[len(own) - 1 : len(own) - 1 + len(ids)], dim=-1)
        best = ahead.argmax(dim=-1).tolist()
        same = next((i for i, (a, b) in enumerate(zip(best, ids, strict=True)) if a != b), len(ids))
        margin = None
        if same < len(ids):
            margin = float(ahead[same, best[same]] - ahead[same, ids[same]])
        found.append(Answer(prompt, text, len(ids), same, margin))
    return found


def main() -> int:
    """Prints and writes the comparison."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("artifact", type=Path)
    parser.add_argument("model", help="the checkpoint that the artifact was made from")
    parser.add_argument("--tokens", type=int, default=32)
    options = parser.parse_args()
    try:
        found = answers(options.artifact, open_checkpoint(options.model), options.tokens)
    except RockledgeError as error:
        print(error, file=sys.stderr)
        return 1
    for answer in found:
        margin = "" if answer.margin is None else f", float margin {answer.margin:.3f} nats"
        print(
            f"{answer.same:3} of {answer.tokens} tokens alike{margin}: {answer.prompt!r} {answer.text[:50]!r}"
        )
    alike = sum(answer.same == answer.tokens for answer in found)
    print(f"{alike} of {len(found)} answers are the float model's")
    body = {"commit": commit(), "model": str(options.model), "answers": [asdict(answer) for answer in found]}
    (RESULTS / "greedy.json").write_text(json.dumps(body, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What every rounding of an artifact costs by itself, and how many greedy answers survive it.

    python -m bench.rounding_costs ARTIFACT MODEL [--other FILE ...] [--tokens 32]

MODEL is the checkpoint that the artifact was made from. The float model answers the prompts of bench.greedy;
over the same texts it then runs with one kind of rounding at a time and with several, all else in floats:
weights as stored, inputs of linears, queries, keys and values. `--other` files are checkpoints (GGUF too) of
the same model whose weights alone are compared so. For each: the mean divergence, the answers that stay the
same, and the noise, the root mean square of the change in the gap between the float model's two best tokens.
With normal noise of that size the answers expected to stay are the sum over prompts of the product over
tokens of P(noise < margin). Large key biases, which the core adds in floats, are not looked after. Writes
bench/results/rounding_costs.json.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.greedy import PROMPTS
from bench.machine import commit
from bench.rounded_heads import rounded
from rockledge.artifact import Artifact, open_artifact
from rockledge.errors import RockledgeError
from rockledge.formats.hadamard import power_of_two_block
from rockledge.formats.packing import dequantize
from rockledge.model.block import Attention, layer_name
from rockledge.model.checkpoint import Checkpoint, open_checkpoint
from rockledge.quantization.float_model import forward as reference
from rockledge.quantization.float_model.logits import finished
from rockledge.quantization.reporting.fakequant import rounded_inputs
from rockledge.quantization.transforming.hadamard import hadamard
from rockledge.quantization.transforming.rotate import RotatedModel, rotated
from rockledge.runtime.engine import Engine

RESULTS = Path(__file__).parent / "results"
PLACES = ("attn.in", "attn.o", "ffn.in", "ffn.down")
GOAL = 7 / 8  # of the answers stay the same
_ROWS = 32  # positions whose logits exist at a time


@dataclass(frozen=True)
class Way:
    """What is rounded: `layers`, `embedding` (its rows and the head), `inputs` of linears by place, `heads`
    out of "qkv". `planes` int8 planes for all of those inputs; None: as many as the artifact has. `turned`:
    a Hadamard makes channels of queries and keys alike first, which scores do not notice."""

    name: str
    layers: bool = False
    embedding: bool = False
    inputs: Collection[str] = ()
    heads: str = ""
    planes: int | None = None
    turned: bool = False


WAYS = (
    Way("everything", True, True, (*PLACES, "head"), "qkv"),
    Way("weights", True, True),
    Way("weights of the layers", layers=True),
    Way("embedding and head", embedding=True),
    Way("inputs", inputs=(*PLACES, "head")),
    *(Way(f"inputs {place}", inputs=(place,)) for place in PLACES),
    Way("inputs in two planes", inputs=(*PLACES, "head"), planes=2),
    Way("queries", heads="q"),
    Way("keys", heads="k"),
    Way("values", heads="v"),
    Way("queries and keys", heads="qk"),
    Way("queries and keys, turned", heads="qk", turned=True),
    Way("everything, inputs in two planes", True, True, (*PLACES, "head"), "qkv", 2),
    Way("that, queries and keys turned", True, True, (*PLACES, "head"), "qkv", 2, True),
)


@dataclass(frozen=True)
class Cost:
    """One row: mean KL and noise in nats, answers that stay the same, and how many would be expected to."""

    what: str
    kl_mean_nats: float
    noise_rms_nats: float
    same: int
    expected: float


@dataclass(frozen=True)
class Answers:
    """The float model's: `rows` of prompt and answer, where each answer begins, and the logits fp32
    [prompts x tokens, vocab] that chose it."""

    rows: list[list[int]]
    starts: list[int]
    tokens: int
    logits: Tensor

    @property
    def ids(self) -> Tensor:
        """int64 [prompts, longest], zeros behind a row's end: nothing that counts can see them."""
        longest = max(map(len, self.rows))
        return torch.tensor([row + [0] * (longest - len(row)) for row in self.rows])

    def choosing(self, states: Tensor) -> Tensor:
        """Of [prompts, longest, ...] the places that choose the answers' tokens, [prompts x tokens, ...]."""
        spans = [slice(start - 1, start - 1 + self.tokens) for start in self.starts]
        return torch.cat([row[span] for row, span in zip(states, spans, strict=True)])


def float_answers(engine: Engine, checkpoint: Checkpoint, tokens: int) -> Answers:
    """The float model's greedy answers. The engine drafts them; one forward pass of the float model checks a
    whole draft, and where it disagrees its own token counts and a new draft goes on from there."""
    rows = [engine.tokenizer.encode(prompt, bos=True) for prompt in PROMPTS]
    starts = [len(row) for row in rows]
    ends = [start + tokens for start in starts]
    while True:
        left = max(end - len(row) for row, end in zip(rows, ends, strict=True))
        drafts = rows
        if left:
            answers = [engine.generate(row, max_tokens=left, ignore_eos=True) for row in rows]
            drawn = [[token for piece in pieces for token in piece.ids] for pieces in answers]
            drafts = [(row + more)[:end] for row, more, end in zip(rows, drawn, ends, strict=True)]
        drafted = Answers(drafts, starts, tokens, torch.zeros(0))
        with torch.no_grad():
            logits = drafted.choosing(reference.forward(checkpoint, drafted.ids))
        if not left:
            return Answers(rows, starts, tokens, logits)
        best = logits.argmax(-1).view(-1, tokens).tolist()
        rows = [_agreed(*one) for one in zip(drafts, starts, best, strict=True)]


def _agreed(draft: list[int], start: int, best: list[int]) -> list[int]:
    """`draft` up to the first token that is not the best one, which takes its place."""
    pairs = zip(draft[start:], best, strict=True)
    wrong = next((i for i, (drawn, right) in enumerate(pairs) if drawn != right), None)
    return draft if wrong is None else [*draft[: start + wrong], best[wrong]]


class Costs:
    """Compares with the float answers; `margins` [prompts, tokens] are how much better, in nats, the chosen
    token was than the second."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        best = answers.logits.topk(2, dim=-1)
        self._two = best.indices
        self._gaps = best.values[:, 0] - best.values[:, 1]
        self.margins = self._gaps.view(-1, answers.tokens)

    def row(self, what: str, logits: Callable[[slice], Tensor]) -> Cost:
        """The row of a model whose logits [places, vocab] are computed a slice at a time."""
        kl = squares = 0.0
        alike = []
        for first in range(0, len(self._gaps), _ROWS):
            rows = slice(first, first + _ROWS)
            own, other = self._answers.logits[rows], logits(rows)
            exact = own.log_softmax(-1)
            kl += float((exact.exp() * (exact - other.log_softmax(-1))).sum())
            chosen = other.gather(-1, self._two[rows])
            squares += float((chosen[:, 0] - chosen[:, 1] - self._gaps[rows]).square().sum())
            alike.append(other.argmax(-1) == self._two[rows, 0])
        noise = math.sqrt(squares / len(self._gaps))
        same = int(torch.cat(alike).view_as(self.margins).all(-1).sum())
        return Cost(what, kl / len(self._gaps), noise, same, self.expected(noise))

    def expected(self, noise: float) -> float:
        """Answers that stay the same where every gap changes by a normal number of this size."""
        kept = torch.special.ndtr(self.margins / noise) if noise else torch.ones_like(self.margins)
        return float(kept.prod(-1).sum())

    def bearable(self) -> float:
        """The largest noise at which the goal's share of answers is expected to stay."""
        low, high = 0.0, 1.0
        for _ in range(40):
            middle = (low + high) / 2
            enough = self.expected(middle) >= GOAL * len(self.margins)
            low, high = (middle, high) if enough else (low, middle)
        return low


@torch.no_grad()
def rounding_costs(artifact: Artifact, model: RotatedModel, answers: Answers, costs: Costs) -> list[Cost]:
    """The rows of `WAYS`; every layer's weights are made once, and all models go through it side by side."""
    tables = {False: model.embedding(), True: _linear(artifact, model.tree.embed.role)}
    states = {way: model.stream(tables[way.embedding][answers.ids]) for way in WAYS}
    for layer in range(len(model.tree.layers)):
        weights = {False: model.block_weights(layer), True: _stored(artifact, model, layer)}
        for way in WAYS:
            states[way] = reference.block_forward(
                weights[way.layers],
                states[way],
                model.tree,
                layer,
                _taps(artifact, way, layer),
                attend=partial(_attend, way),
            )
        print(f"\rlayer {layer + 1} of {len(model.tree.layers)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    if not model.config.tied:
        tables = {False: model.head(), True: _linear(artifact, model.tree.head.role)}
    rows = []
    for way in WAYS:
        last = model.head_input(answers.choosing(states[way]))
        if "head" in way.inputs:
            last = rounded_inputs(last, way.planes or artifact.planes(model.tree.head.role))
        rows.append(costs.row(way.name, partial(_logits, last, tables[way.embedding], model)))
    return rows


def _logits(states: Tensor, table: Tensor, model: RotatedModel, rows: slice) -> Tensor:
    return finished(states[rows] @ table.T, model.tree)


def _linear(artifact: Artifact, name: str) -> Tensor:
    return torch.from_numpy(dequantize(artifact.linear(name)))


def _stored(artifact: Artifact, model: RotatedModel, layer: int) -> dict[str, Tensor]:
    """Weights, biases and kept gains of one layer by role, as the artifact has them."""
    found, of = {}, model.tree.layers[layer]
    for linear in of.linears:
        name = layer_name(layer, linear.role)
        found[linear.role] = _linear(artifact, name)
        if (bias := artifact.linear(name).bias) is not None:
            found[linear.role + ".bias"] = torch.from_numpy(np.array(bias))
    for norm in of.kept_norms:
        found[norm.role] = torch.from_numpy(np.array(artifact.array(layer_name(layer, norm.role))))
    return found


def _taps(artifact: Artifact, way: Way, layer: int) -> reference.Taps:
    def tap(place: str, x: Tensor) -> Tensor:
        x = hadamard(x, artifact.online.get(place, 0))
        if place not in way.inputs:
            return x
        first = {"attn.in": "attn.q", "ffn.in": "ffn.gate"}.get(place, place)
        return rounded_inputs(x, way.planes or artifact.planes(layer_name(layer, first)))

    return tap


def _attend(way: Way, body: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention over queries, keys and values of which those in `way.heads` are rounded."""
    if way.turned:
        block = power_of_two_block(body.head_dim, body.head_dim)
        q, k = hadamard(q, block), hadamard(k, block)
    q, k, v = (rounded(x) if role in way.heads else x for role, x in zip("qkv", (q, k, v), strict=True))
    return reference.attention(body, q, k, v)


def other_cost(checkpoint: Checkpoint, name: str, answers: Answers, costs: Costs) -> Cost:
    """The row of another file's weights, in floats."""
    with torch.no_grad():
        logits = answers.choosing(reference.forward(checkpoint, answers.ids))
    return costs.row(f"weights of {name}", lambda rows: logits[rows])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints and writes; 1 when something cannot be opened."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("artifact", type=Path)
    parser.add_argument("model", help="the checkpoint that the artifact was made from")
    parser.add_argument("--other", nargs="*", default=[], help="files whose weights alone are compared")
    parser.add_argument("--tokens", type=int, default=32)
    options = parser.parse_args(arguments)
    try:
        checkpoint, artifact = open_checkpoint(options.model), open_artifact(options.artifact)
        with Engine.load(options.artifact, npu="off") as engine:
            answers = float_answers(engine, checkpoint, options.tokens)
        costs = Costs(answers)
        rows = rounding_costs(artifact, rotated(checkpoint), answers, costs)
        for other in options.other:
            rows.append(other_cost(open_checkpoint(other), Path(other).name, answers, costs))
    except RockledgeError as error:
        print(error, file=sys.stderr)
        return 1
    for row in rows:
        print(
            f"{row.what:<44}KL {row.kl_mean_nats:.5f}  noise {row.noise_rms_nats:.4f} nats  "
            f"{row.same} of {len(PROMPTS)} answers the same, {row.expected:.2f} expected"
        )
    least = costs.margins.min(-1).values.tolist()
    for prompt, margin in zip(PROMPTS, least, strict=True):
        print(f"smallest margin {margin:.4f} nats: {prompt!r}")
    print(f"{GOAL:.0%} of the answers would stay at a noise of {costs.bearable():.4f} nats")
    body = {
        "commit": commit(),
        "artifact_bits_per_weight": artifact.bits_per_weight,
        "costs": [asdict(row) for row in rows],
        "smallest_margins_nats": dict(zip(PROMPTS, least, strict=True)),
        "bearable_noise_nats": costs.bearable(),
    }
    (RESULTS / "rounding_costs.json").write_text(json.dumps(body, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

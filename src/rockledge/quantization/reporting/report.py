"""The result of compression: the numbers of report.json, and the same for people as report.md."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rockledge.artifact import ArtifactPlan
from rockledge.artifact.parts import heading, parts_table
from rockledge.board.boards import Board
from rockledge.board.time import predict_decode
from rockledge.eval.kl_words import kl_in_words
from rockledge.model.block import decoder, layer_name
from rockledge.model.config import ModelConfig
from rockledge.quantization.reporting.check import PriceCheck, role_of
from rockledge.quantization.reporting.loss import COSINE, Loss, reported_loss
from rockledge.quantization.reporting.on_board import board_line
from rockledge.quantization.reporting.picture import PICTURE, band_width
from rockledge.quantization.work.store import Prices

# Matrix types of GGUF files that hold fewer bits than a float.
_NARROW = re.compile(r"\b(I?Q\d\w*|TQ\d\w*|MXFP4\w*|NVFP4\w*)\b")


@dataclass(frozen=True)
class BudgetRow:
    """One line of the table of budgets. The next four are None where the budget cannot be met; then
    `nearest` is the least number of bits that can. `made` marks the one that the artifact has."""

    bits_asked: float
    bits_per_weight: float | None
    tensor_bytes: int | None
    predicted_loss: float | None
    decode_tok_s_predicted: float | None
    nearest: float | None = None
    made: bool = False

    def body(self, loss: Loss) -> dict[str, Any]:
        """The line as report.json has it, with a loss measured in `loss`."""
        return {
            loss.predicted if key == "predicted_loss" else key: value for key, value in asdict(self).items()
        }


@dataclass(frozen=True)
class Report:
    """`numbers` is what report.json holds, `text` what report.md holds, `picture` (PNG) what widths.png
    holds; None where matplotlib is not installed."""

    numbers: dict[str, Any]
    text: str
    picture: bytes | None = None


def decode_speed(plan: ArtifactPlan, board: Board) -> float:
    """Predicted tok/s of one sequence on a board: every matrix a token multiplies with, read once."""
    tree = decoder(plan.config)
    gathered = (tree.embed.role,) if tree.gathered else ()
    bands = [
        (band.bits, band.rows, spec.cols)
        for name, spec in plan.linears.items()
        if name not in gathered
        for band in spec.bands
    ]
    return predict_decode(bands, board=board).decode_tok_s


def wide_heads(plan: ArtifactPlan) -> dict[str, list[list[int]]]:
    """Attention heads stored at 8 bits: by role, [layer, head] pairs."""
    found: dict[str, list[list[int]]] = {}
    head = plan.config.head_dim
    for number, role, _ in _headed(plan.config):
        heads = found.setdefault(role, [])
        for band in plan.linears[layer_name(number, role)].bands:
            if band.bits == 8:
                heads += [[number, row // head] for row in range(band.start, band.start + band.rows, head)]
    return found


def _headed(config: ModelConfig) -> list[tuple[int, str, int]]:
    """(layer, role, heads) of every linear that is cut into heads."""
    return [
        (number, linear.role, linear.rows // config.head_dim)
        for number, layer in enumerate(decoder(config).layers)
        for linear in layer.linears
        if linear.banding == "head"
    ]


def wide_reasons(plan: ArtifactPlan, prices: Prices) -> dict[str, float]:
    """Why the heads at 8 bits have them: their share of all heads' weights, and their share of what all
    heads would cost at four bits."""
    heads = {layer_name(number, role) for number, role, _ in _headed(plan.config)}
    bands = [band for band in prices.bands if band.linear in heads]
    wide = [band for band in bands if band_width(plan, band) == 8]
    return {
        "share_of_weights": sum(b.rows * b.cols for b in wide) / sum(b.rows * b.cols for b in bands),
        "share_of_price": sum(b.prices[4] for b in wide) / (sum(b.prices[4] for b in bands) or 1.0),
    }


def check_numbers(check: PriceCheck) -> dict[str, Any]:
    """The check of the prices as report.json has it."""
    return {
        "rank_correlation": check.rank_correlation,
        "tokens": check.tokens,
        "measured_over_priced": check.measured_over_priced,
        "bands": [asdict(band) for band in check.bands],
    }


def notes_on(stored: str) -> list[str]:
    """What a reader must know about the float model that everything is compared with."""
    if not _NARROW.search(stored):
        return []
    note = (
        f'The packaged checkpoint was already quantised ({stored}): "float model" means its dequantised '
        "weights, and their own loss against the original model is not in these numbers."
    )
    return [note]


def report_text(
    numbers: Mapping[str, Any], config: ModelConfig, *, picture: bool, made: Sequence[str] = ()
) -> str:
    """report.md; with `picture`, widths.png lies beside it. `made` are the lines of `Provenance`."""
    divergence, loss = numbers["divergence"], reported_loss(numbers)
    cost = (
        f"{_embedding_cost(divergence) if loss is COSINE else _logits_cost(divergence)}; "
        f"{divergence['scored_tokens']} held-out tokens of the calibration mix, weights and inputs rounded, "
        "sums in floats."
    )
    lines = [
        *heading(numbers),
        "",
        "## What it cost",
        "",
        cost,
        "",
        f"{board_line(numbers)}.",
        "",
        *parts_table(numbers),
    ]
    lines += ["", "Attention heads at 8 bits:", ""]
    for role, heads in numbers["heads_at_8_bits"].items():
        every = sum(count for _, other, count in _headed(config) if other == role)
        named = ", ".join(f"{layer}.{head}" for layer, head in heads) or "none"
        lines.append(f"- {role}: {len(heads)} of {every} (layer.head: {named})")
    why = numbers["heads_at_8_bits_why"]
    reason = (
        f"These are {100 * why['share_of_weights']:.1f} % of the weights in heads; at 4 bits they would cost "
        f"{100 * why['share_of_price']:.1f} % of what all heads cost at 4 bits."
    )
    lines += ["", reason]
    if picture:
        lines += ["", f"![Width by layer and band, and the price of four bits]({PICTURE})"]
    if numbers["price_check"] is not None:
        lines += ["", "## Are the prices true?", "", *_check_lines(numbers["price_check"], loss)]
    lines += ["", "## Other budgets", "", *budget_table(numbers["budgets"], numbers["board"], loss)]
    lines += ["", *made] if made else []
    return "\n".join(lines) + "\n"


def _logits_cost(divergence: Mapping[str, Any]) -> str:
    return (
        f"KL to the float model {divergence['kl_mean_nats']:.4f} ± {divergence['kl_mean_se_nats']:.4f} nats "
        f"a token ({kl_in_words(divergence['kl_mean_nats'])}), "
        f"same top token {100 * divergence['top1_agreement']:.1f} %, perplexity "
        f"{divergence['perplexity']:.2f} (float {divergence['reference_perplexity']:.2f})"
    )


def _embedding_cost(distance: Mapping[str, Any]) -> str:
    return (
        f"1 - cosine to the float model's embeddings {distance['cosine_distance_mean']:.2g} on average, "
        f"{distance['cosine_distance_max']:.2g} at worst"
    )


def _check_lines(check: Mapping[str, Any], loss: Loss) -> list[str]:
    """The check of the prices for people."""
    ranked = (
        f"{len(check['bands'])} random bands, each rounded to {check['bands'][0]['bits']} bits alone in the "
        f"float model: the rank correlation of price and measured {loss.name} is "
        f"{check['rank_correlation']:.3f} (goal 0.8; {check['tokens']} held-out tokens)."
    )
    lines = [
        ranked,
        "",
        "| part | bands | measured / priced |",
        "| --- | ---: | ---: |",
    ]
    for role, factor in check["measured_over_priced"].items():
        count = sum(role_of(band["linear"]) == role for band in check["bands"])
        lines.append(f"| {role} | {count} | {factor:.2f} |")
    return lines


def budget_table(rows: Sequence[Mapping[str, Any]], board: str, loss: Loss) -> list[str]:
    """The table of budgets in Markdown, line by line."""
    lines = [
        f"| asked | bits a weight | MB | predicted {loss.name} | predicted tok/s on {board} |",
        "| ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        if row["bits_per_weight"] is None:
            lines.append(f"| {row['bits_asked']:.2f} | impossible; {row['nearest']:.3f} is the least | | | |")
            continue
        lines.append(
            f"| {row['bits_asked']:.2f}{' (this one)' if row['made'] else ''} "
            f"| {row['bits_per_weight']:.3f} | {row['tensor_bytes'] / 1e6:.1f} "
            f"| {loss.shown(row[loss.predicted])} | {row['decode_tok_s_predicted']:.1f} |"
        )
    return lines

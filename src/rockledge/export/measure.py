"""What rounding weights again costs: the exported weights against those of the artifact, both in floats.

It is the cost of the export alone. What the artifact itself costs against its source is in its report.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from rockledge.eval.kl_words import kl_in_words
from rockledge.export.plain import PlainModel
from rockledge.export.request import ExportRequest
from rockledge.model.checkpoint import Checkpoint
from rockledge.model.tokenizer import Tokenizer

WINDOW: Final = 128
KEPT: Final = ("kl_mean_nats", "kl_mean_se_nats", "top1_agreement", "cosine_distance_mean", "scored_tokens")


def rounding_cost(
    model: PlainModel, exported: Mapping[str, Checkpoint], request: ExportRequest
) -> dict[str, dict[str, float]] | None:
    """By name, the divergence of each of `exported` from the artifact's floats on the built-in text (KL in
    nats a token; the cosine distance of embeddings where there is no language head). None where no tokens
    are asked for."""
    if not request.tokens:
        return None
    from rockledge.eval.divergence import divergences
    from rockledge.eval.embeddings import embedding_distances
    from rockledge.eval.windows import cut_windows
    from rockledge.quantization.float_model.reference_logits import ReferenceLogits

    # What a target cuts its context to need not be right beyond it.
    context = min([model.config.context, *(one.config.context for one in exported.values())])
    tokens, window = sample(model, request.tokens, context)
    windows = cut_windows(tokens, window)

    def states(name: str, checkpoint: Any) -> ReferenceLogits:
        said = f"measuring {name}, blocks"
        return ReferenceLogits(
            checkpoint, windows, progress=lambda done, total: request.progress(said, done, total)
        )

    reference = states("the artifact", model)
    found = {}
    for name, checkpoint in exported.items():
        other = states(name, checkpoint)
        if model.config.headless:
            report: Any = embedding_distances(reference, other, tokens, window=window)
        else:
            report = divergences(reference, {name: other}, tokens, window=window)[name]
        found[name] = {key: value for key, value in asdict(report).items() if key in KEPT}
    return found


def sample(model: PlainModel, count: int, context: int) -> tuple[list[int], int]:
    """About `count` tokens of the built-in texts, a part of each, and the window to cut them into, at most
    `context` long."""
    from rockledge.quantization.calibration.texts import default_calibration

    tokenizer = Tokenizer.from_files(model.files(), model.config.vocab)
    window = min(WINDOW, context, max(count, 8))
    texts = default_calibration()
    each = max(1, math.ceil(count / window / len(texts))) * window
    tokens: list[int] = []
    for text in texts:
        found = tokenizer.encode(text[: 16 * each], bos=False)
        tokens += found[: len(found) // window * window][:each]
    return tokens[: max(count // window, 1) * window], window


def cost_lines(cost: Mapping[str, Mapping[str, float]]) -> list[str]:
    """The cost for people."""
    lines = []
    for name, numbers in cost.items():
        if "kl_mean_nats" in numbers:
            kl = numbers["kl_mean_nats"]
            lines.append(
                f"rounded to {name}: {kl:.2g} nats a token from the artifact, same top token "
                f"{100 * numbers['top1_agreement']:.1f}% ({kl_in_words(kl)})"
            )
        else:
            lines.append(
                f"rounded to {name}: 1 - cosine {numbers['cosine_distance_mean']:.2g} from the artifact"
            )
    return lines

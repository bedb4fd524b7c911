"""Documents in one sequence do not see each other, in whatever family a model is of.

Most families of transformers know by positions that begin again where a document ends
(`find_packed_sequence_indices` in masking_utils.py). Some use positions for rotary turns alone, such as
GraniteMoeHybrid in 5.23, and attend across. So every model is tried, and one that attends across is given the
mask.
"""

from typing import Any

import torch

from rockledge.errors import UsageError

_TOKENS = 8  # of each of the two documents that a model is tried with
_LEAK = 0.05  # of the mean logit: rounding to bfloat16 stays below, a second document does not


def keep_documents_apart(model: Any) -> None:
    """Makes a causal language model attend within documents, where it does not by itself.

    Raises:
        UsageError: it cannot be made to, such as a model with a state that goes through a sequence.
    """
    if not _leaks(model):
        return
    family = model.config.model_type
    hook = None
    if not getattr(model.config, "sliding_window", None):  # whose layers need masks of two kinds
        hook = model.base_model.register_forward_pre_hook(_with_mask, with_kwargs=True)
    if hook is None or _leaks(model):
        raise UsageError(
            f"models of the family {family} see all documents of a sequence at once in transformers, so they "
            "would learn what follows by chance; take another model"
        )


@torch.no_grad()
def _leaks(model: Any) -> bool:
    """Whether the second of two documents in a sequence reads otherwise than alone."""
    vocabulary = model.config.get_text_config().vocab_size
    ids = (torch.arange(2 * _TOKENS, device=model.device)[None] * 7 + 3) % vocabulary
    positions = torch.arange(_TOKENS, device=model.device).repeat(2)[None]
    try:
        alone = model(input_ids=ids[:, _TOKENS:], position_ids=positions[:, _TOKENS:], use_cache=False).logits
        both = model(input_ids=ids, position_ids=positions, use_cache=False).logits[:, _TOKENS:]
    except (ValueError, RuntimeError, IndexError, TypeError):  # of a mask that the family does not take
        return True
    difference = (alone.float() - both.float()).abs().mean()
    return bool(difference > _LEAK * alone.float().abs().mean())


def _with_mask(module: Any, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Adds the mask [B, 1, T, T] of what each token sees, where there are positions and no mask yet."""
    positions = named.get("position_ids")
    if positions is None or named.get("attention_mask") is not None:
        return given, named
    document = (positions == 0).cumsum(-1)
    order = torch.arange(positions.shape[-1], device=positions.device)
    seen = (document[:, :, None] == document[:, None, :]) & (order[:, None] >= order[None, :])
    mask = seen[:, None]
    if module.config._attn_implementation == "eager":
        mask = torch.where(mask, 0.0, torch.finfo(module.dtype).min).to(module.dtype)
    return given, {**named, "attention_mask": mask}

"""Documents in one sequence are read as if each stood alone, in every family."""

from itertools import pairwise

import pytest
import torch
from tests.model.family_oracle import random_twin
from tests.pruning.teachers import FAMILIES, LAYERS

from rockledge.distillation.document_masks import keep_documents_apart
from rockledge.errors import UsageError

CUTS = ((0, 13, 14, 30, 40), (0, 7, 25, 40))  # where documents of two sequences begin


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("family", ["granitehybrid", "gemma3", "qwen2"])
def test_documents_do_not_see_each_other(family: str, implementation: str) -> None:
    kind, own = FAMILIES[family]
    model = random_twin(kind, **{"num_hidden_layers": LAYERS, **own})
    model.set_attn_implementation(implementation)
    keep_documents_apart(model)
    ids = torch.randint(5, 60, (2, 40), generator=torch.Generator().manual_seed(0))
    positions = torch.cat([torch.cat([torch.arange(b - a) for a, b in pairwise(c)])[None] for c in CUTS])
    with torch.no_grad():
        together = model(input_ids=ids, position_ids=positions, use_cache=False).logits
        for row, cuts in enumerate(CUTS):
            for first, last in pairwise(cuts):
                alone = model(input_ids=ids[row : row + 1, first:last], use_cache=False).logits[0]
                torch.testing.assert_close(together[row, first:last], alone, rtol=1e-4, atol=1e-4)


def test_a_model_that_cannot_keep_them_apart_is_refused() -> None:
    from transformers import MambaConfig, MambaForCausalLM

    config = MambaConfig(hidden_size=32, num_hidden_layers=2, vocab_size=64, state_size=4)
    model = MambaForCausalLM(config).eval()
    with pytest.raises(UsageError, match="family mamba see all documents of a sequence at once"):
        keep_documents_apart(model)

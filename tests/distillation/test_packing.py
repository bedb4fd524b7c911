"""Packing loses no token, and documents do not see each other."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.distillation.pair import Pair

from rockledge.distillation.learnt_tokens import Tokens
from rockledge.distillation.packing import IGNORED, packed


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.integers(8, 24))
def test_every_token_is_in_its_place(lengths: list[int], length: int) -> None:
    documents, count = [], 0
    for size in lengths:
        ids = np.arange(count, count + size)
        documents.append(Tokens(ids, np.arange(size) > 0))
        count += size
    found = packed(documents, length)
    begin = {int(document.ids[0]): len(document.ids) for document in documents}
    starts = sorted(begin)
    for row in range(len(found)):
        for place in range(length):
            token = int(found.ids[row, place])
            first = max(start for start in starts if start <= token)
            # A document begins at 0; one that goes on from the sequence before begins at 0 there.
            row_start = int(found.ids[row, 0])
            assert found.positions[row, place] == token - max(first, row_start)
            assert found.labels[row, place] == (IGNORED if place == 0 or token == first else token)
    kept = found.ids.reshape(-1)
    assert len(set(kept.tolist())) == len(kept)
    missing = count // length * length - len(kept)
    assert missing >= 0
    assert missing % length == 0


def test_a_document_is_read_as_if_it_stood_alone(pair: Pair) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(pair.student, dtype=torch.float32)
    generator = np.random.default_rng(3)
    documents = [Tokens(generator.integers(3, 300, n), np.ones(n, np.bool_)) for n in (10, 25, 13)]
    found = packed(documents, 24)
    with torch.no_grad():
        logits = model(
            input_ids=torch.from_numpy(found.ids),
            position_ids=torch.from_numpy(found.positions),
            use_cache=False,
        ).logits
        alone = [
            model(input_ids=torch.from_numpy(part)[None]).logits[0]
            for part in (
                documents[0].ids,
                documents[1].ids[:14],
                documents[1].ids[14:],
                documents[2].ids,
            )
        ]
    torch.testing.assert_close(logits.flatten(0, 1), torch.cat(alone), rtol=1e-4, atol=1e-5)

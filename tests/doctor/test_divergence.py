"""KL beside SciPy's, and where answers part."""

import numpy as np
import torch
from scipy.special import softmax
from scipy.stats import entropy

from rockledge.doctor.divergence import agreement, divergences
from rockledge.doctor.text import Text


def test_doctor_divergence_is_scipys() -> None:
    ours, theirs = np.random.default_rng(0).normal(size=(2, 70, 30)).astype(np.float32)
    found = divergences(torch.from_numpy(theirs), torch.from_numpy(ours)).numpy()
    wanted = entropy(softmax(theirs.astype(np.float64), -1), softmax(ours.astype(np.float64), -1), axis=-1)
    assert np.allclose(found, wanted, atol=1e-12)


def test_doctor_says_where_an_answer_parts() -> None:
    text = Text.of([[1, 2, 3], [4, 5]], [[6, 7, 8], [9]])
    expected = torch.eye(10)[torch.tensor([2, 3, 6, 7, 8, 0, 5, 9, 0])]
    found = expected.clone()
    found[0] = expected[3]  # within a prompt: no part of an answer
    found[4] = expected[1]  # after its second token
    one = agreement(expected, found, text)
    assert one.first_divergence == (2, None)
    assert one.top1_agreement == 7 / 9
    assert not one.identical
    assert agreement(expected, expected, text).identical

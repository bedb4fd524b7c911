"""The divergence over k tokens and the rest, against NumPy in double precision and PyTorch's own."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from rockledge.distillation import losses, top_logits
from rockledge.distillation.losses import learnt_rows, token_sums
from rockledge.distillation.packing import IGNORED
from rockledge.distillation.top_logits import TopLogits, divergence
from rockledge.distillation.top_logits import top_logits as top_of


def drawn(rows: int, vocabulary: int, seed: int, spread: float = 3.0) -> torch.Tensor:
    return torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed)) * spread


def coarse(teacher: TopLogits, student: torch.Tensor) -> np.ndarray:
    """KL over k tokens and one for all others, in double precision."""
    p = np.exp(teacher.logs.numpy().astype(np.float64))
    p /= p.sum(-1, keepdims=True)
    q = np.exp(log_softmax(student.double(), -1).numpy())
    best = np.take_along_axis(q, teacher.ids.numpy().astype(np.int64), -1)
    q = np.concatenate([best, 1 - best.sum(-1, keepdims=True)], -1)
    return np.sum(np.where(p > 0, p * np.log(np.maximum(p, 1e-300) / q), 0), -1)


@pytest.mark.parametrize("k", [1, 5, 64, 199])
def test_the_divergence_is_over_k_tokens_and_the_rest(k: int) -> None:
    teacher, student = drawn(20, 200, 0), drawn(20, 200, 1)
    kept = top_of(teacher, k)
    exact = log_softmax(teacher.double(), -1)
    best = exact.topk(k, -1)
    assert torch.equal(kept.ids.long(), best.indices)
    np.testing.assert_allclose(kept.logs[:, :-1].double(), best.values, rtol=1e-3, atol=1e-4)
    rest = 1 - best.values.exp().sum(-1)
    np.testing.assert_allclose(kept.logs[:, -1].double().exp(), rest, rtol=1e-2, atol=1e-6)
    found = divergence(student, kept)
    np.testing.assert_allclose(found, coarse(kept, student), rtol=1e-4, atol=1e-5)
    whole = kl_div(log_softmax(student, -1), log_softmax(teacher, -1), log_target=True, reduction="none").sum(
        -1
    )
    assert bool((found <= whole + 2e-3).all())


def test_with_all_tokens_it_is_pytorchs() -> None:
    teacher, student = drawn(20, 50, 0), drawn(20, 50, 1).requires_grad_()
    found = divergence(student, top_of(teacher, 50))
    whole = kl_div(log_softmax(student, -1), log_softmax(teacher, -1), log_target=True, reduction="none").sum(
        -1
    )
    torch.testing.assert_close(found, whole, rtol=2e-3, atol=2e-3)
    (gradient,) = torch.autograd.grad(found.sum(), student)
    torch.testing.assert_close(
        gradient, (student.softmax(-1) - teacher.softmax(-1)).detach(), rtol=0, atol=1e-3
    )


def test_a_student_with_the_teachers_logits_has_nothing_to_learn() -> None:
    logits = drawn(20, 200, 0).requires_grad_()
    found = divergence(logits, top_of(logits.detach(), 8))
    (gradient,) = torch.autograd.grad(found.sum(), logits)
    assert float(found.detach().abs().max()) < 1e-5
    assert float(gradient.abs().max()) < 2e-3


def test_a_certain_teacher_is_no_trouble() -> None:
    """Nothing is left for the rest: neither loss nor gradient may become 0 * inf."""
    teacher = torch.full((2, 30), -1e4)
    teacher[:, 3] = 1e4
    student = drawn(2, 30, 1).requires_grad_()
    found = divergence(student, top_of(teacher, 4))
    (gradient,) = torch.autograd.grad(found.sum(), student)
    torch.testing.assert_close(found, -log_softmax(student, -1)[:, 3], rtol=1e-5, atol=1e-5)
    assert bool(torch.isfinite(gradient).all())


def test_sums_are_over_learnt_tokens_and_do_not_depend_on_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = torch.randint(0, 40, (3, 16), generator=torch.Generator().manual_seed(2))
    labels[:, :5] = IGNORED
    labels[1] = IGNORED
    logits = drawn(48, 40, 3).reshape(3, 16, 40).requires_grad_()
    rows = learnt_rows(labels)
    teacher = top_of(drawn(int(rows.sum()), 40, 4), 6)
    whole = token_sums(logits, labels, teacher)
    wanted = cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED, reduction="sum"
    )
    torch.testing.assert_close(whole.data, wanted)
    assert whole.kl is not None
    torch.testing.assert_close(whole.kl, divergence(logits.flatten(0, 1)[rows], teacher).sum())
    assert whole.tokens == int(rows.sum()) == 22
    (gradient,) = torch.autograd.grad(whole.kl + whole.data, logits, retain_graph=True)
    monkeypatch.setattr(top_logits, "CHUNK_NUMBERS", 40 * 7)
    parts = token_sums(logits, labels, teacher)
    assert parts.kl is not None
    (other,) = torch.autograd.grad(parts.kl + parts.data, logits)
    torch.testing.assert_close(other, gradient)
    torch.testing.assert_close(parts.kl, whole.kl)
    assert losses.token_sums(logits[1:2], labels[1:2], None).tokens == 0

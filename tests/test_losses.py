"""Losses against their definitions written with loops, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from discovla import losses


def features(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def dot(a: Tensor, b: Tensor) -> float:
    return float((a / a.norm()) @ (b / b.norm()))


SCALE = torch.tensor(7.0, dtype=torch.float64)
sizes = st.integers(1, 5)


def softmax(row: list[float], scale: float) -> list[float]:
    weights = [math.exp(scale * value) for value in row]
    return [weight / sum(weights) for weight in weights]


def naive_contrastive(rows: list[list[float]], scale: float) -> float:
    """Half the sum of both directions of -log of the diagonal's probability, averaged."""
    columns = [list(column) for column in zip(*rows, strict=True)]
    total = 0.0
    for direction in (rows, columns):
        for i, row in enumerate(direction):
            total -= math.log(softmax(row, scale)[i])
    return total / (2 * len(rows))


def naive_divergence(teacher: list[list[float]], student: list[list[float]], scale: float) -> float:
    total = 0.0
    for t_row, s_row in zip(teacher, student, strict=True):
        p, q = softmax(t_row, scale), softmax(s_row, scale)
        total += sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True))
    return total


def naive_image_similarity(t: Tensor, v: Tensor, scale: float, kind: str, pooling: str) -> Tensor:
    batch, frames = t.shape[:2]
    result = torch.zeros(batch, batch, dtype=torch.float64)
    for i in range(batch):
        for j in range(batch):
            table = [[dot(t[i, n], v[j, m]) for m in range(frames)] for n in range(frames)]
            if kind == "paired":
                result[i, j] = sum(table[n][n] for n in range(frames)) / frames
                continue
            halves = []
            for maxima in (
                [max(row) for row in table],
                [max(column) for column in zip(*table, strict=True)],
            ):
                weights = [1 / frames] * frames
                if pooling == "softmax":
                    weights = softmax(maxima, scale)
                halves.append(sum(w * x for w, x in zip(weights, maxima, strict=True)))
            result[i, j] = sum(halves) / 2
    return result


@given(b=sizes, d=st.integers(2, 4), seed=st.integers(0, 99))
def test_cosine_is_the_product_of_unit_vectors(b: int, d: int, seed: int) -> None:
    t, v = features(b, d, seed=seed), features(b + 1, d, seed=seed + 100)
    expected = torch.tensor([[dot(x, y) for y in v] for x in t], dtype=torch.float64)
    torch.testing.assert_close(losses.cosine(t, v), expected)


@given(b=sizes, f=sizes, seed=st.integers(0, 99))
def test_mean_pool_averages_unit_vectors_of_counted_frames(b: int, f: int, seed: int) -> None:
    frames = features(b, f, 3, seed=seed)
    mask = features(b, f, seed=seed + 1) > -0.5
    for i in range(b):
        counted = [x / x.norm() for x, m in zip(frames[i], mask[i], strict=True) if m]
        expected = sum(counted) / len(counted) if counted else torch.zeros(3, dtype=torch.float64)
        torch.testing.assert_close(losses.mean_pool(frames, mask)[i], expected)
    everything = losses.mean_pool(frames, torch.ones_like(mask))
    torch.testing.assert_close(losses.mean_pool(frames), everything)


@given(b=sizes, seed=st.integers(0, 99))
def test_contrastive_loss(b: int, seed: int) -> None:
    similarity = features(b, b, seed=seed).tanh()
    expected = naive_contrastive(similarity.tolist(), float(SCALE))
    assert float(losses.contrastive_loss(similarity, SCALE)) == pytest.approx(expected)


@given(
    b=st.integers(1, 4),
    f=st.integers(1, 4),
    kind=st.sampled_from(["fine", "paired"]),
    pooling=st.sampled_from(["softmax", "mean"]),
    seed=st.integers(0, 99),
)
def test_image_similarity(b: int, f: int, kind: str, pooling: str, seed: int) -> None:
    t, v = features(b, f, 3, seed=seed), features(b, f, 3, seed=seed + 100)
    found = losses.image_similarity(t, v, SCALE, kind, pooling)
    expected = naive_image_similarity(t, v, float(SCALE), kind, pooling)
    torch.testing.assert_close(found, expected)


def test_video_level_similarity_is_the_cosine_of_means() -> None:
    t, v = features(3, 4, 5), features(3, 4, 5, seed=1)
    found = losses.image_similarity(t, v, SCALE, "video")
    unit = [x / x.norm(dim=-1, keepdim=True) for x in (t, v)]
    for i in range(3):
        for j in range(3):
            assert float(found[i, j]) == pytest.approx(dot(unit[0][i].mean(0), unit[1][j].mean(0)))


@given(b=sizes, seed=st.integers(0, 99))
def test_distillation_loss(b: int, seed: int) -> None:
    image, video = features(b, b, seed=seed).tanh(), features(b, b, seed=seed + 1).tanh()
    rows = naive_divergence(image.tolist(), video.tolist(), float(SCALE))
    columns = naive_divergence(image.T.tolist(), video.T.tolist(), float(SCALE))
    released = losses.distillation_loss(image, video, SCALE)
    assert float(released) == pytest.approx((rows + columns) / 2 / b**2 * 100, abs=1e-9)
    mean = losses.distillation_loss(image, video, SCALE, "batch_mean")
    assert float(mean) == pytest.approx((rows + columns) / 2 / b, abs=1e-9)


def test_teacher_is_detached_only_when_asked() -> None:
    for detached in (False, True):
        image, video = features(3, 3).requires_grad_(), features(3, 3, seed=1).requires_grad_()
        losses.distillation_loss(image, video, SCALE, detach_teacher=detached).backward()
        assert video.grad is not None
        assert (image.grad is None) == detached


def test_softmax_weights_carry_gradient() -> None:
    t, v = features(2, 3, 4).requires_grad_(), features(2, 3, 4, seed=1)
    (found,) = torch.autograd.grad(losses.image_similarity(t, v, SCALE).sum(), t)
    step = 1e-6
    changed = t.detach().clone()
    changed[0, 1, 2] += step
    before = naive_image_similarity(t.detach(), v, float(SCALE), "fine", "softmax").sum()
    after = naive_image_similarity(changed, v, float(SCALE), "fine", "softmax").sum()
    assert float(found[0, 1, 2]) == pytest.approx(float(after - before) / step, rel=1e-4)


def test_pairs_of_one_video_are_left_out_of_negatives() -> None:
    """Leaving pairs out equals computing each row over the remaining columns."""
    similarity, teacher = features(4, 4).tanh(), features(4, 4, seed=1).tanh()
    excluded = losses.same_video_pairs(torch.tensor([5, 6, 5, 7]))
    assert excluded.nonzero().tolist() == [[0, 2], [2, 0]]
    found = losses.contrastive_loss(similarity, SCALE, excluded)
    kept = [[j for j in range(4) if not excluded[i, j]] for i in range(4)]
    total, distilled = 0.0, 0.0
    for matrix, source in ((similarity, teacher), (similarity.T, teacher.T)):
        for i in range(4):
            row = softmax(matrix[i, kept[i]].tolist(), float(SCALE))
            total -= math.log(row[kept[i].index(i)])
            distilled += naive_divergence(
                [source[i, kept[i]].tolist()], [matrix[i, kept[i]].tolist()], float(SCALE)
            )
    assert float(found) == pytest.approx(total / 8)
    kl = losses.distillation_loss(teacher, similarity, SCALE, "batch_mean", excluded=excluded)
    assert float(kl) == pytest.approx(distilled / 8)


def test_gradients_stay_finite_with_excluded_pairs() -> None:
    similarity, teacher = (features(3, 3, seed=s).float().requires_grad_() for s in (0, 1))
    excluded = losses.same_video_pairs(torch.tensor([0, 0, 0]))
    losses.distillation_loss(teacher, similarity, SCALE.float(), excluded=excluded).backward()
    assert similarity.grad is not None
    assert similarity.grad.isfinite().all()

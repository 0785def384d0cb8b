"""The similarities and losses of the paper: Eq. 1-4 and 8-14.

Everything starts from features, so that a trainer may compute these in pieces and join them here.
B samples (a caption and its video), F frames and as many pseudo captions, D joint dimension; rows
of every (B, B) matrix are captions i, columns are videos j. `scale` is exp(logit_scale) = 1/τ.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def cosine(texts: Tensor, videos: Tensor) -> Tensor:
    """Eq. 1 with both sides L2-normalised: (M, D) and (N, D) give (M, N)."""
    return F.normalize(texts, dim=-1) @ F.normalize(videos, dim=-1).T


def mean_pool(frames: Tensor, mask: Tensor | None = None) -> Tensor:
    """Temporal average pooling (§3.1): the mean of L2-normalised features, not normalised again.

    Args:
        frames: (B, F, D).
        mask: (B, F), nonzero where a frame counts; None counts all.

    Returns:
        (B, D); zeros for a sample without any frame.
    """
    frames = F.normalize(frames, dim=-1)
    if mask is None:
        return frames.mean(1)
    weights = mask.to(frames.dtype)
    total = (frames * weights[..., None]).sum(1)
    return total / weights.sum(1, keepdim=True).clamp(min=1)


def same_video_pairs(video_index: Tensor) -> Tensor:
    """(B, B) bool: different samples of one video, which are no true negatives of each other."""
    same = video_index[:, None] == video_index[None, :]
    return same & ~torch.eye(len(video_index), dtype=torch.bool, device=same.device)


def _logits(similarity: Tensor, scale: Tensor, excluded: Tensor | None) -> Tensor:
    logits = similarity * scale
    if excluded is None:
        return logits
    # Finite, because Eq. 13 subtracts two logarithms and inf - inf is no number.
    return logits.masked_fill(excluded, torch.finfo(logits.dtype).min / 2)


def contrastive_loss(similarity: Tensor, scale: Tensor, excluded: Tensor | None = None) -> Tensor:
    """Eq. 2-4: mean of the cross-entropies of rows and of columns; the truth is the diagonal.

    Eq. 2-3 print the temperature outside of exp and the sign in Eq. 4; this is InfoNCE proper.

    Args:
        similarity: (B, B).
        scale: exp(logit_scale), a scalar.
        excluded: (B, B) bool, pairs left out of the negatives.
    """
    logits = _logits(similarity, scale, excluded)
    truth = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, truth) + F.cross_entropy(logits.T, truth)) / 2


def image_similarity(
    captions: Tensor, frames: Tensor, scale: Tensor, kind: str = "fine", pooling: str = "softmax"
) -> Tensor:
    """Image-level similarity of every caption's pseudo captions and every video's frames.

    Args:
        captions: (B, F, D) features of pseudo captions, t in Eq. 8.
        frames: (B, F, D) features of frames, v in Eq. 8.
        scale: sharpness of the softmax weights.
        kind: a row of Table 7. `fine`: Eq. 8-10; `paired`: mean over n of t_n·v_n; `video`: cosine
            of the mean frame and the mean pseudo caption.
        pooling: `softmax` joins the maxima of Eq. 8-9 as the released code does (weights
            softmax(scale · maxima), which carry gradient), `mean` as printed.

    Returns:
        (B, B).
    """
    if kind == "video":
        return cosine(mean_pool(captions), mean_pool(frames))
    captions, frames = F.normalize(captions, dim=-1), F.normalize(frames, dim=-1)
    if kind == "paired":
        return torch.einsum("ind,jnd->ij", captions, frames) / captions.shape[1]
    pairs = torch.einsum("ind,jmd->ijnm", captions, frames)
    per_caption, per_frame = pairs.amax(3), pairs.amax(2)  # Eq. 8 over m, Eq. 9 over n
    joined = [_join_maxima(maxima, scale, pooling) for maxima in (per_caption, per_frame)]
    return (joined[0] + joined[1]) / 2  # Eq. 10


def _join_maxima(maxima: Tensor, scale: Tensor, pooling: str) -> Tensor:
    if pooling == "mean":
        return maxima.mean(-1)
    return (maxima * (maxima * scale).softmax(-1)).sum(-1)


def divergence(
    teacher: Tensor, student: Tensor, scale: Tensor, excluded: Tensor | None = None
) -> Tensor:
    """Sum over rows of KL(teacher's row ‖ student's row), rows being softmax(scale · row).

    One term of Eq. 13 before its division; Eq. 11-12 make the distributions. Both (B, B).
    """
    log_teacher = _logits(teacher, scale, excluded).log_softmax(-1)
    log_student = _logits(student, scale, excluded).log_softmax(-1)
    return F.kl_div(log_student, log_teacher, reduction="sum", log_target=True)


def distillation_loss(
    image: Tensor,
    video: Tensor,
    scale: Tensor,
    reduction: str = "released",
    detach_teacher: bool = False,
    excluded: Tensor | None = None,
) -> Tensor:
    """Eq. 11-13: the image-level similarity teaches the video-level one, both directions halved.

    Args:
        image: (B, B) image-level similarity, the teacher.
        video: (B, B) video-level similarity, the student.
        scale: exp(logit_scale), a scalar.
        reduction: `released` = 100/B² times the sum over rows, `batch_mean` = the mean over rows;
            they agree at B = 100.
        detach_teacher: whether the teacher gets no gradient; in the released code it does.
        excluded: (B, B) bool, pairs left out of both distributions.
    """
    if detach_teacher:
        image = image.detach()
    rows = divergence(image, video, scale, excluded)
    columns = divergence(image.T, video.T, scale, excluded)  # `excluded` is symmetric
    batch = len(video)
    factor = 100 / batch**2 if reduction == "released" else 1 / batch
    return (rows + columns) / 2 * factor

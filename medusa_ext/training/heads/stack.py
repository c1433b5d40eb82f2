"""Medusa heads as a torch module, and their loss without ever holding all logits."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import nn
from torch.nn import functional

IGNORED: Final = -1


class HeadStack(nn.Module):
    """K heads over the final-norm output x [R, H] of the base.

    y = x + SiLU(W x + b), for each layer. Kind "root" also sees e, the root token's embedding
    scaled to x's magnitude, in the first layer: y = x + SiLU(W x + E e + b). All weights start at
    zero, so that a head starts as the base's lm_head (Medusa, section 2.2.1).
    """

    def __init__(
        self, kind: str, num_heads: int, num_layers: int, hidden_size: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if kind not in ("medusa", "root"):
            raise ValueError(f"kind: needs 'medusa' or 'root', got {kind!r}")
        self.kind = kind
        self.num_heads, self.num_layers, self.hidden_size = num_heads, num_layers, hidden_size
        self.dropout = dropout
        square = (num_layers, num_heads, hidden_size, hidden_size)
        self.weight = nn.Parameter(torch.zeros(square))
        self.bias = nn.Parameter(torch.zeros(square[:3]))
        self.root = nn.Parameter(torch.zeros(square[1:])) if kind == "root" else None

    def forward(
        self, x: torch.Tensor, e: torch.Tensor | None, mask: torch.Tensor | None, dtype: torch.dtype
    ) -> torch.Tensor:
        """x, e [R, H] -> y [K, R, H] in `dtype`; `mask` [L, R, K * H] scales what layers add."""
        heads, hidden = self.num_heads, self.hidden_size
        low = x.to(dtype)
        # All heads of the first layer read the same x: one wide product.
        added = functional.linear(low, self.weight[0].reshape(-1, hidden).to(dtype))
        if self.root is not None:
            assert e is not None
            matrix = self.root.reshape(-1, hidden).to(dtype)
            added = added + functional.linear(e.to(dtype), matrix)
        added = functional.silu(added + self.bias[0].reshape(-1).to(dtype))
        added = added if mask is None else added * mask[0]
        y = low.unsqueeze(1) + added.view(-1, heads, hidden)
        y = y.transpose(0, 1)
        for layer in range(1, self.num_layers):
            matrix = self.weight[layer].to(dtype).transpose(1, 2)
            more = torch.baddbmm(self.bias[layer].to(dtype).unsqueeze(1), y, matrix)
            more = functional.silu(more)
            if mask is not None:
                more = more * mask[layer].view(-1, heads, hidden).transpose(0, 1)
            y = y + more
        return y

    def dropout_mask(
        self, rows: int, generator: torch.Generator, dtype: torch.dtype
    ) -> torch.Tensor | None:
        """A mask [L, R, K * H] of zeros and 1 / (1 - p); None without dropout."""
        if self.dropout <= 0:
            return None
        keep = 1.0 - self.dropout
        shape = (self.num_layers, rows, self.num_heads * self.hidden_size)
        return torch.empty(shape, dtype=dtype).bernoulli_(keep, generator=generator).div_(keep)


def root_embedding(x: torch.Tensor, embedding: torch.Tensor, eps: float = 1e-12) -> torch.Tensor:
    """The embeddings [R, H] of root tokens, each scaled to the magnitude of its row of x [R, H]."""
    size_x = x.float().square().mean(-1, keepdim=True).sqrt()
    size_e = embedding.float().square().mean(-1, keepdim=True).sqrt()
    return embedding.float() * (size_x / (size_e + eps))


class DraftLoss(torch.autograd.Function):
    """Sum of cross-entropies of rows y [R, H] against draft ids over the logits y U^T.

    The gradient is made with the loss, a chunk of rows at a time: at no time are there logits for
    more than `chunk` rows. With `teacher` [R, H] the targets are the base's own distribution
    softmax(teacher U^T) where the target is known.
    """

    @staticmethod
    def forward(
        ctx: Any,
        y: torch.Tensor,
        matrix: torch.Tensor,
        targets: torch.Tensor,
        teacher: torch.Tensor | None,
        chunk: int,
    ) -> torch.Tensor:
        """y [R, H], matrix [V', H], targets [R] (IGNORED: no loss) -> a float32 sum."""
        total = torch.zeros((), dtype=torch.float32)
        low = matrix.to(y.dtype)
        grad_y = torch.empty_like(y)
        grad_matrix = torch.zeros_like(matrix) if ctx.needs_input_grad[1] else None
        for start in range(0, len(y), chunk):
            part = slice(start, start + chunk)
            known = (targets[part] != IGNORED).unsqueeze(1)
            labels = targets[part].clamp_min(0).unsqueeze(1)
            # One pass over the logits; their gradient is then made in place.
            slope = functional.linear(y[part], low).softmax(dim=1)
            if teacher is None:
                picked = slope.gather(1, labels)
                total -= (picked.float().clamp_min(1e-30).log() * known).sum()
                slope.scatter_(1, labels, picked - 1)
            else:
                goal = functional.linear(teacher[part].to(y.dtype), low).softmax(dim=1)
                total -= (goal.float() * slope.float().clamp_min(1e-30).log() * known).sum()
                slope.sub_(goal)
            if grad_matrix is not None:
                used = y[part] * known
                grad_matrix += torch.mm(slope.t(), used).to(grad_matrix.dtype)
            torch.mm(slope, low, out=grad_y[part]).mul_(known)
        ctx.save_for_backward(grad_y)
        ctx.grad_matrix = grad_matrix
        return total

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Scales the gradients made in the forward pass."""
        (grad_y,) = ctx.saved_tensors
        matrix = None if ctx.grad_matrix is None else ctx.grad_matrix * slope
        return grad_y * slope.to(grad_y.dtype), matrix, None, None, None


def draft_loss(
    y: torch.Tensor,
    matrix: torch.Tensor,
    targets: torch.Tensor,
    teacher: torch.Tensor | None,
    chunk: int,
) -> torch.Tensor:
    """`DraftLoss` as a function; see there."""
    loss: torch.Tensor = DraftLoss.apply(y, matrix, targets, teacher, chunk)  # type: ignore[no-untyped-call]
    return loss

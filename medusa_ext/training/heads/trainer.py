"""Medusa-1: trains heads on stored hidden states of a frozen base."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from ...files import whole_file
from ..data.vocabulary import DraftVocabulary
from ..processes import Processes
from .dataset import Dataset
from .settings import TrainSettings
from .stack import IGNORED, HeadStack, draft_loss, root_embedding

# Rows whose logits exist at a time: few, so that they stay in the cache.
_CHUNK: Final = 256


class TrainingError(RuntimeError):
    """A run that cannot go on; the message names step and rows."""


@dataclass
class Base:
    """What training needs of the frozen base: its embedding [V, H] and lm_head [V, H]."""

    embedding: torch.Tensor
    lm_head: torch.Tensor


def faster_dtype(hidden_size: int) -> torch.dtype:
    """bfloat16 where its matrix products are clearly faster on this machine, else float32."""
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.randn(512, hidden_size).to(dtype)
        b = torch.randn(4 * hidden_size, hidden_size).to(dtype)
        times = []
        for _ in range(4):
            start = time.perf_counter()
            functional.linear(a, b)
            times.append(time.perf_counter() - start)
        seconds[dtype] = min(times)
    faster = seconds[torch.bfloat16] * 1.3 < seconds[torch.float32]
    return torch.bfloat16 if faster else torch.float32


class Trainer:
    """One run: rows in a seeded order, steps, checkpoints. Every random choice is a function of
    the seed and the step, so that a resumed run repeats what an unbroken one does."""

    def __init__(
        self,
        settings: TrainSettings,
        data: Dataset,
        vocabulary: DraftVocabulary,
        base: Base,
        processes: Processes,
    ) -> None:
        self.settings, self.data, self.vocabulary = settings, data, vocabulary
        self.processes = processes
        self.dtype: torch.dtype = (
            faster_dtype(data.manifest.hidden_size)
            if settings.dtype == "auto"
            else getattr(torch, settings.dtype)
        )
        self.heads = HeadStack(
            settings.kind,
            settings.num_heads,
            settings.num_layers,
            data.manifest.hidden_size,
            settings.dropout,
        )
        self.embedding = base.embedding
        rows = torch.from_numpy(vocabulary.token_map.astype(np.int64))
        self.matrix = base.lm_head[rows].float()
        self.matrix_low = self.matrix.to(self.dtype)
        self.lm_head = torch.nn.Parameter(self.matrix.clone()) if settings.own_lm_head else None
        self.parameters = list(self.heads.parameters())
        if self.lm_head is not None:
            self.parameters.append(self.lm_head)
        self.optimizer = torch.optim.AdamW(
            self._groups(), lr=settings.learning_rate, betas=(0.9, 0.99), foreach=True
        )
        true_ids = data.targets(settings.num_heads)
        self.targets = vocabulary.draft_ids(true_ids, data.manifest.vocab_size)
        self.rows = data.rows(held_out=False)
        if not len(self.rows):
            raise ValueError("training data: needs at least one row to train on, got none")
        self.steps_per_epoch = -(-len(self.rows) // settings.batch)
        self.total_steps = max(1, round(self.steps_per_epoch * settings.epochs))
        self.step = 0
        self._weights = settings.head_weight ** torch.arange(settings.num_heads).float()

    def _groups(self) -> list[dict[str, Any]]:
        """Parameters with weight decay (matrices) and without (biases)."""
        decay = [p for p in self.parameters if p is not self.heads.bias]
        return [
            {"params": decay, "weight_decay": self.settings.weight_decay},
            {"params": [self.heads.bias], "weight_decay": 0.0},
        ]

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, then a cosine down to zero."""
        settings = self.settings
        warm = max(1, round(settings.warmup * self.total_steps))
        if step < warm:
            return settings.learning_rate * (step + 1) / warm
        done = (step - warm) / max(1, self.total_steps - warm)
        return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    def batch_rows(self, step: int) -> npt.NDArray[np.int64]:
        """The rows of a step's global batch: the epoch's permutation, cut."""
        epoch, number = divmod(step, self.steps_per_epoch)
        order = self._permutation(epoch)
        return self.rows[order[number * self.settings.batch : (number + 1) * self.settings.batch]]

    def _permutation(self, epoch: int) -> npt.NDArray[np.int64]:
        if getattr(self, "_order_epoch", None) != epoch:
            generator = np.random.default_rng([self.settings.seed, epoch])
            self._order = generator.permutation(len(self.rows))
            self._order_epoch = epoch
        return self._order

    def train_step(self) -> dict[str, float]:
        """One step; its loss per known target, by head and in all.

        Raises TrainingError if loss or gradients are not finite; the weights are then unchanged.
        """
        rows = self.batch_rows(self.step)
        mine = rows[self.processes.share(len(rows))]
        index = torch.from_numpy(mine)
        all_targets = self.targets[torch.from_numpy(rows)]
        counts = (all_targets != IGNORED).sum(0).clamp_min(1).float()
        self.optimizer.zero_grad(set_to_none=False)
        x = self.data.hidden[index].float()
        losses = torch.zeros(self.settings.num_heads)
        if len(mine):
            y = self._forward(x, index, len(rows))
            losses = self._losses(y, index)
            torch.autograd.backward((losses / counts * self._weights).sum())
        losses = losses.detach()
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self.parameters]
        self.processes.add([losses, *gradients])
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.clip)
        if not (math.isfinite(float(losses.sum())) and math.isfinite(float(norm))):
            raise TrainingError(self._not_finite(rows, float(losses.sum()), float(norm)))
        rate = self.learning_rate(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.step += 1
        means = (losses / counts).tolist()
        facts = {f"loss_{k}": value for k, value in enumerate(means)}
        total = float(sum(w * v for w, v in zip(self._weights.tolist(), means, strict=True)))
        return {"loss": total, "gradient_norm": float(norm), "learning_rate": rate, **facts}

    def _forward(self, x: torch.Tensor, index: torch.Tensor, batch: int) -> torch.Tensor:
        """The heads' outputs [K, R, H] for rows of this process, with the global dropout mask."""
        seed = self.settings.seed * 1_000_003 + self.step
        generator = torch.Generator().manual_seed(seed)
        mask = self.heads.dropout_mask(batch, generator, self.dtype)
        if mask is not None:
            mask = mask[:, self.processes.share(batch)]
        e = self.root_input(x, index)
        y: torch.Tensor = self.heads(x, e, mask, self.dtype)
        return y

    def root_input(self, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor | None:
        """The scaled root embeddings [R, H] of rows; None for plain heads."""
        if self.settings.kind != "root":
            return None
        return root_embedding(x, self.embedding[self.data.tokens[index].long()])

    def _losses(self, y: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Each head's summed loss [K]."""
        matrix = self.matrix_low if self.lm_head is None else self.lm_head
        losses = []
        for k in range(self.settings.num_heads):
            targets = self.targets[index, k].long()
            teacher = None
            if self.settings.targets == "soft":
                ahead = (index + k + 1).clamp_max(len(self.data.hidden) - 1)
                teacher = self.data.hidden[ahead]
            losses.append(draft_loss(y[k], matrix, targets, teacher, _CHUNK))
        return torch.stack(losses)

    def _not_finite(self, rows: npt.NDArray[np.int64], loss: float, norm: float) -> str:
        """Names the step and, where the data are to blame, the rows."""
        finite = torch.isfinite(self.data.hidden[torch.from_numpy(rows)].float()).all(1)
        bad = rows[~finite.numpy()]
        blame = "all its hidden states are finite: try a lower learning rate"
        if len(bad):
            places = "; ".join(self.data.describe_row(int(row)) for row in bad[:5])
            blame = f"{len(bad)} of its hidden states are not finite: {places}"
        return (
            f"step {self.step}: needs a finite loss and gradient, got loss {loss} and gradient "
            f"norm {norm} in the batch of {len(rows)} rows from "
            f"{self.data.describe_row(int(rows[0]))} on; {blame}"
        )

    # ---- checkpoints
    def save(self, path: Path) -> None:
        """Writes everything that a resumed run needs, whole or not at all."""
        state = {
            "settings": asdict(self.settings),
            "step": self.step,
            "rows": len(self.rows),
            "token_map": torch.from_numpy(self.vocabulary.token_map),
            "parameters": [p.detach() for p in self.parameters],
            "optimizer": self.optimizer.state_dict(),
        }
        with whole_file(path) as made:
            torch.save(state, made)

    def load(self, path: Path) -> None:
        """Continues from a checkpoint of the same run.

        Raises ValueError if it is damaged or belongs to other settings or other data.
        """
        try:
            state = torch.load(path, weights_only=True)
            have, need = state["settings"], asdict(self.settings)
        except Exception as error:  # torch.load raises many kinds
            what = "a checkpoint written by train"
            raise ValueError(f"{path}: needs {what}, got: {error}") from error
        differing = {k: (have.get(k), need[k]) for k in need if have.get(k) != need[k]}
        if differing:
            raise ValueError(f"{path}: needs the same settings, got (there, here): {differing}")
        same_map = torch.equal(state["token_map"], torch.from_numpy(self.vocabulary.token_map))
        if state["rows"] != len(self.rows) or not same_map:
            need_rows = f"the same data ({len(self.rows)} rows)"
            raise ValueError(f"{path}: needs {need_rows}, got a run with {state['rows']} rows")
        with torch.no_grad():
            for parameter, value in zip(self.parameters, state["parameters"], strict=True):
                parameter.copy_(value)
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = int(state["step"])

    def run(self, each_step: Iterable[Callable[[dict[str, float]], None]] = ()) -> None:
        """All steps that are left; `each_step` are told the facts of each."""
        calls = list(each_step)
        while self.step < self.total_steps:
            facts = self.train_step()
            for call in calls:
                call(facts)

"""One training run over several processes (torchrun, accelerate): the calls it needs."""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
import torch.distributed as dist


def _count(name: str, default: int) -> int:
    """A number that torchrun sets. Raises ValueError naming the variable for anything else."""
    value = os.environ.get(name, "").strip() or str(default)
    if not (value.isascii() and value.isdigit()) or int(value) < default:
        raise ValueError(f"{name}: needs a whole number from {default} up, got {value!r}")
    return int(value)


class Processes:
    """The group that this process belongs to; alone without torchrun's environment."""

    def __init__(self) -> None:
        """Joins the group that torchrun's variables name, over gloo."""
        self.size = _count("WORLD_SIZE", 1)
        self.rank = _count("RANK", 0)
        self._joined = False
        if self.size > 1 and not dist.is_initialized():
            dist.init_process_group("gloo")
            self._joined = True

    @property
    def first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def share(self, rows: int) -> slice:
        """This process's part of a global batch of `rows`."""
        per_process = -(-rows // self.size)
        return slice(min(rows, self.rank * per_process), min(rows, (self.rank + 1) * per_process))

    def add(self, tensors: Iterable[torch.Tensor]) -> None:
        """Sums tensors over all processes, in place."""
        if self.size == 1:
            return
        tensors = list(tensors)
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def wait(self) -> None:
        """Returns when all processes are here."""
        if self.size > 1:
            dist.barrier()

    def leave(self) -> None:
        """Leaves the group, if this object joined it."""
        if self._joined:
            dist.destroy_process_group()
            self._joined = False

"""A model's weights as torch tensors, for the parts of training that need the base's forward."""

from __future__ import annotations

from typing import Final

import torch

from ..checkpoints import ModelConfig, ModelSource, iter_weights

MATRICES: Final = ("q", "k", "v", "o", "gate", "up", "down")


class TorchWeights:
    """All weights under their canonical names: matrices in `dtype`, vectors and the embedding
    (whose rows the choice between close logits needs) in float32."""

    def __init__(self, source: ModelSource, dtype: torch.dtype, device: str = "cpu") -> None:
        self.config: ModelConfig = source.config
        self.dtype = dtype
        self.device = torch.device(device)
        self._tensors: dict[str, torch.Tensor] = {}
        for name, weight in iter_weights(source):
            tensor = torch.from_numpy(weight.to_float().reshape(weight.shape).copy())
            matrix = name.rsplit(".", 1)[-1] in MATRICES
            self._tensors[name] = tensor.to(self.device, dtype if matrix else torch.float32)

    def __getitem__(self, name: str) -> torch.Tensor:
        """A weight that the model must have."""
        return self._tensors[name]

    def get(self, name: str) -> torch.Tensor | None:
        """A weight that only some models have."""
        return self._tensors.get(name)

    def joined(self, prefix: str, names: tuple[str, ...]) -> torch.Tensor | None:
        """Several weights stacked by rows, for one product; None where the model has none."""
        if prefix + names[0] not in self._tensors:
            return None
        return torch.cat([self._tensors.pop(prefix + name) for name in names])

    @property
    def lm_head(self) -> torch.Tensor:
        """The output matrix [V, H] in float32."""
        found = self._tensors.get("lm_head")
        return self._tensors["embed"] if found is None else found


def vocabulary_matrices(source: ModelSource) -> tuple[torch.Tensor, torch.Tensor]:
    """The embedding and the lm_head, [V, H] in float32; one tensor where they are tied."""
    found: dict[str, torch.Tensor] = {}
    for name, weight in iter_weights(source):
        if name in ("embed", "lm_head"):
            found[name] = torch.from_numpy(weight.to_float().reshape(weight.shape).copy())
    return found["embed"], found.get("lm_head", found["embed"])

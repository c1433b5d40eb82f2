"""Hugging Face transformers as a peer: the model's shape with arbitrary weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from medusa_ext.checkpoints import ModelConfig


class Transformers:
    """A Llama of the given shape in "float32", "bfloat16" or "float16". What its weights are does
    not change the time, so they need not be loaded."""

    def __init__(self, config: ModelConfig, dtype: str) -> None:
        import torch
        import transformers

        self._torch = torch
        shape = transformers.LlamaConfig(
            num_hidden_layers=config.num_layers,
            hidden_size=config.hidden_size,
            num_attention_heads=config.num_query_heads,
            num_key_value_heads=config.num_kv_heads,
            head_dim=config.head_size,
            intermediate_size=config.ffn_size,
            vocab_size=config.vocab_size,
            max_position_embeddings=config.max_position_embeddings,
            tie_word_embeddings=config.tied_embeddings,
        )
        with torch.device("meta"):
            model = transformers.LlamaForCausalLM(shape)
        model = model.to(getattr(torch, dtype)).to_empty(device="cpu")
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(0, 0.02, generator=generator)
            for buffer in model.buffers():
                buffer.uniform_(0, 1, generator=generator)
        model.tie_weights()
        self._model: Any = model.eval()
        self._cache: Any = None

    def prefill(self, tokens: npt.NDArray[np.int32]) -> None:
        """A prompt from nothing, with the last row's logits."""
        with self._torch.inference_mode():
            self._model(self._ids(tokens), logits_to_keep=1, use_cache=True)

    def fill(self, tokens: npt.NDArray[np.int32]) -> None:
        """Makes these tokens the cached text of `forward_rows`."""
        with self._torch.inference_mode():
            answer = self._model(self._ids(tokens), logits_to_keep=1, use_cache=True)
        self._cache = answer.past_key_values

    def forward_rows(self, rows: int) -> None:
        """One forward of so many rows after the cached text, with all their logits."""
        with self._torch.inference_mode():
            ids = self._torch.arange(1, rows + 1)[None]
            self._model(ids, past_key_values=self._cache, use_cache=True)
        self._cache.crop(-rows)  # a negative count removes rows, in all versions

    def generate(self, prompts: Sequence[npt.NDArray[np.int32]], count: int) -> None:
        """Greedy answers of exactly `count` tokens each, the prompts padded on the left."""
        width = max(map(len, prompts))
        ids = self._torch.zeros(len(prompts), width, dtype=self._torch.int64)
        mask = self._torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = self._ids(prompt)[0]
            mask[row, width - len(prompt) :] = 1
        with self._torch.inference_mode():
            self._model.generate(
                ids,
                attention_mask=mask,
                max_new_tokens=count,
                min_new_tokens=count,
                do_sample=False,
                pad_token_id=0,
            )

    def _ids(self, tokens: npt.NDArray[np.int32]) -> Any:
        return self._torch.from_numpy(tokens.astype(np.int64))[None]

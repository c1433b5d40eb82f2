"""Models that several tests use: tiny random ones in every family, and the real default one."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from loading_models import tiny_model
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers import models as tokenizer_models
from transformers import PreTrainedTokenizerFast

import medusa_ext
from medusa_ext.checkpoints.heads.checkpoint import HeadsCheckpoint, ResBlock
from medusa_ext.checkpoints.heads.v3 import save_heads
from medusa_ext.drafting.fixed import FixedDrafter

TEMPLATE = (
    "{% for m in messages %}<user>{{ m['role'] }}: {{ m['content'] }}<end>{% endfor %}"
    "{% if add_generation_prompt %}<user>assistant: {% endif %}"
)
TINY_VOCAB = 272  # 256 bytes, three control tokens, and ids that mean nothing
END = 256
ROPES = {
    "linear": {"rope_type": "linear", "factor": 4.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
}


@functools.cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="medusa-models-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def byte_tokenizer() -> Tokenizer:
    """Byte-level, one token a byte, then `<end>`, `<user>` and `<pad>`."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {character: i for i, character in enumerate(alphabet)}
    tokenizer = Tokenizer(tokenizer_models.BPE(vocab, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken(text, special=True) for text in ("<end>", "<user>", "<pad>")]
    tokenizer.add_special_tokens(special)
    return tokenizer


@functools.cache
def tiny_directory(family: str = "llama", **options: Any) -> Path:
    """A directory with a random model of two layers and a byte tokenizer; `rope` names one of
    ROPES, other options are those of the transformers configuration."""
    name = "-".join([family, *(f"{key}{value}" for key, value in sorted(options.items()))])
    directory = _folder() / name
    if "rope" in options:
        rope = ROPES[options.pop("rope")]
        options["rope_parameters"] = {"rope_theta": 10000.0, **rope}
    model = tiny_model(family, **({"vocab_size": TINY_VOCAB, "eos_token_id": END} | options))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(0.6)
    model.save_pretrained(directory)
    PreTrainedTokenizerFast(
        tokenizer_object=byte_tokenizer(), eos_token="<end>", chat_template=TEMPLATE
    ).save_pretrained(directory)
    return directory


@functools.cache
def tiny(family: str = "llama", dtype: str = "float32", **options: Any) -> medusa_ext.Model:
    """The tiny random model of a family, loaded."""
    return medusa_ext.load(tiny_directory(family, **options), heads=None, dtype=dtype)


@functools.cache
def tiny_heads(
    kind: str = "medusa", num_heads: int = 3, traces: bool = False, useless: bool = False
) -> Path:
    """Random heads for the tiny models: they guess what the base would, which is right now and
    then; useless ones guess at random."""
    torch.manual_seed(3)
    size = 64

    def block() -> ResBlock:
        return ResBlock(torch.randn(size, size) * 0.1, torch.randn(size) * 0.1)

    roots = tuple(torch.randn(size, size) * 0.1 for _ in range(num_heads))
    checkpoint = HeadsCheckpoint(
        path=_folder(),
        layout="v3",
        kind=kind,
        hidden_size=size,
        blocks=tuple((block(),) for _ in range(num_heads)),
        lm_heads=(torch.randn(TINY_VOCAB, size),) if useless else None,
        root_weights=roots if kind == "root" else None,
        rank_traces=torch.randint(-1, 4, (200, num_heads)) if traces else None,
    )
    return save_heads(checkpoint, _folder() / f"heads-{kind}-{num_heads}-{traces}-{useless}")


@functools.cache
def tiny_with_heads(kind: str = "medusa", traces: bool = False) -> medusa_ext.Model:
    """The tiny Llama with random heads."""
    return medusa_ext.load(tiny_directory(), heads=tiny_heads(kind, 3, traces), dtype="float32")


@functools.cache
def real(dtype: str = "float32") -> medusa_ext.Model:
    """The default model, loaded once per format."""
    return medusa_ext.load("smollm2-135m-instruct", heads=None, dtype=dtype)


class PlantedDrafter(FixedDrafter):
    """Random trees in which plain decoding's own continuation is at a random path.

    The path's end is uniform over the nodes, so all depths and node orders come to be accepted;
    all other nodes hold random tokens. `accepted_paths` collects the paths for the test's sake.
    """

    name = "planted"

    def __init__(
        self, truths: Sequence[Sequence[int]], vocab_size: int, max_nodes: int, seed: int
    ) -> None:
        """truths[b]: the whole text of sequence b, prompt included, as plain decoding makes it."""
        self.max_nodes = max_nodes
        self._truths = truths
        self._vocab_size = vocab_size
        self._random = Random(seed)

    def propose(self, session: Any, active: Sequence[int]) -> bool:
        """Sets every active sequence's tree."""
        lengths = session.lengths
        for b in active:
            truth = self._truths[b][lengths[b] :]
            size = self._random.randint(1, self.max_nodes)
            # Mostly deep, mostly wide, and in between.
            near = self._random.choice((1, 3, size))
            parents = [-1] + [self._random.randint(max(0, i - near), i - 1) for i in range(1, size)]
            tokens = [truth[0]]
            tokens += [self._random.randrange(self._vocab_size) for _ in range(size - 1)]
            path = []
            node = self._random.randrange(size)
            while node > 0:
                path.append(node)
                node = parents[node]
            for depth, node in enumerate(reversed(path), start=1):
                if depth < len(truth):
                    tokens[node] = truth[depth]
            session.set_tree(b, np.array(tokens, np.int32), np.array(parents, np.int32))
        return True

"""Whole decoding with synthetic models of published shapes, drafts accepted as published.

The weights are random, the arithmetic and the memory traffic those of the real model. Acceptance
is *replayed*: of every step's tree the nodes that hold the true continuation are drawn from the
published accuracies of Medusa's heads, taken to be independent of one another. The heads are
evaluated all the same; their guesses are thrown away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from random import Random
from statistics import median
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from medusa_ext import _C
from medusa_ext.checkpoints.config import LayerSpec, ModelConfig
from medusa_ext.checkpoints.rope import Rope
from medusa_ext.drafting.published import NUM_HEADS, published_accuracies
from medusa_ext.drafting.trees import NestedTrees, Tree, nested_from_accuracies
from medusa_ext.engine.step import run_step

_CHUNK_ROWS: Final = 4096
_RESIDUAL_SCALE: Final = 1e-3


@dataclass(frozen=True)
class DecoderShape:
    """A decoder's sizes. `published` names the row of accuracies that is replayed."""

    name: str
    published: str
    num_layers: int
    hidden_size: int
    num_heads: int
    ffn_size: int
    vocab_size: int


SHAPES: Final = (
    DecoderShape("Llama-7B", "7B", 32, 4096, 32, 11008, 32000),
    DecoderShape("Llama-13B", "13B", 40, 5120, 40, 13824, 32000),
)
TOY: Final = DecoderShape("toy", "7B", 2, 128, 2, 192, 512)


class SyntheticModel:
    """Random weights whose greedy continuation is known: each token's successor is a permutation.

    The lm_head's row successor[t] is the embedding of t, and the layers add little to the residual
    stream, so that the arg-max is never close and every divergence would be a fault.
    """

    def __init__(self, shape: DecoderShape, device: str, dtype: str) -> None:
        random = np.random.default_rng(1)
        self.shape = shape
        self.successor = random.permutation(shape.vocab_size).astype(np.int32)
        self._block = random.standard_normal((64, 1 << 14), dtype=np.float32)
        names = ("q", "k", "v", "o", "gate", "up", "down")
        formats = {"embed": dtype, "lm_head": dtype}
        formats |= {f"layers.{i}.{n}": dtype for i in range(shape.num_layers) for n in names}
        builder = _C.ModelBuilder(self._config(), formats, device=device)
        embedding = random.standard_normal((shape.vocab_size, shape.hidden_size), dtype=np.float32)
        self._set(builder, "embed", embedding)
        lm_head = np.empty_like(embedding)
        lm_head[self.successor] = embedding
        self._set(builder, "lm_head", lm_head)
        ones = np.ones(shape.hidden_size, dtype=np.float32)
        builder.set_vector("final_norm", ones)
        h, f = shape.hidden_size, shape.ffn_size
        sizes = {"q": (h, h), "k": (h, h), "v": (h, h), "o": (h, h)}
        sizes |= {"gate": (f, h), "up": (f, h), "down": (h, f)}
        for i in range(shape.num_layers):
            builder.set_vector(f"layers.{i}.attn_norm", ones)
            builder.set_vector(f"layers.{i}.ffn_norm", ones)
            for name, (rows, columns) in sizes.items():
                scale = _RESIDUAL_SCALE if name in ("o", "down") else 1.0
                self._set_random(builder, f"layers.{i}.{name}", rows, columns, scale)
        self.native = builder.finish()

    def heads(self, dtype: str) -> _C.Heads:
        """Random heads as published: one ResBlock and an lm_head each."""
        h = self.shape.hidden_size
        builder = _C.HeadsBuilder(self.native, NUM_HEADS, 1, "medusa", "own", dtype, dtype)
        for k in range(NUM_HEADS):
            self._set_random(builder, f"{k}.0.weight", h, h, 1.0)
            builder.set_vector(f"{k}.0.bias", np.zeros(h, dtype=np.float32))
            self._set_random(builder, f"{k}.lm_head", self.shape.vocab_size, h, 1.0)
        return builder.finish()

    def continuation(self, token: int, count: int) -> list[int]:
        """The `count` tokens after `token`."""
        tokens = []
        for _ in range(count):
            token = int(self.successor[token])
            tokens.append(token)
        return tokens

    def _config(self) -> ModelConfig:
        shape = self.shape
        return ModelConfig(
            family=shape.name,
            hidden_size=shape.hidden_size,
            num_query_heads=shape.num_heads,
            num_kv_heads=shape.num_heads,
            head_size=shape.hidden_size // shape.num_heads,
            ffn_size=shape.ffn_size,
            vocab_size=shape.vocab_size,
            rms_eps=1e-5,
            tied_embeddings=False,
            ropes=(Rope(),),
            layers=(LayerSpec(),) * shape.num_layers,
            max_position_embeddings=1 << 20,
        )

    def _set(
        self,
        builder: _C.ModelBuilder | _C.HeadsBuilder,
        name: str,
        matrix: npt.NDArray[np.float32],
    ) -> None:
        for start in range(0, len(matrix), _CHUNK_ROWS):
            builder.set_rows(name, start, "F32", matrix[start : start + _CHUNK_ROWS])

    def _set_random(
        self,
        builder: _C.ModelBuilder | _C.HeadsBuilder,
        name: str,
        rows: int,
        columns: int,
        scale: float,
    ) -> None:
        """The same random numbers for every matrix: drawing billions would take minutes."""
        pool = self._block[:, :columns] * np.float32(scale / columns**0.5)
        for start in range(0, rows, len(pool)):
            chunk = pool[: min(len(pool), rows - start)]
            builder.set_rows(name, start, "F32", np.ascontiguousarray(chunk))


@dataclass(frozen=True)
class Decoding:
    """One way of decoding one model. `milliseconds`: per step, median of the rounds."""

    model: str
    num_nodes: int
    length: int
    tokens_per_step: float
    milliseconds: float
    tokens_per_second: float
    bytes_per_step: int
    bandwidth_share: float
    divergences: int
    replayed: bool

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


class ReplayedTree:
    """Tokens for a static tree, of which a drawn path is the truth."""

    def __init__(self, tree: Tree, accuracies: Sequence[Sequence[float]], seed: int) -> None:
        self.parents = np.array(tree.parents, dtype=np.int32)
        self._depths = np.array([0, *(len(path) for path in tree.paths)])
        self._node_of = {path: i for i, path in enumerate(tree.paths, start=1)}
        self._accuracies = accuracies
        self._random = Random(seed)

    def tokens(self, root: int, truth: Sequence[int], vocab_size: int) -> npt.NDArray[np.int32]:
        """[N] tokens; truth[d - 1] belongs to depth d. Others are wrong and distinct."""
        nodes = np.arange(len(self.parents))
        true_tokens = np.array([root, *truth], dtype=np.int64)[self._depths]
        tokens: npt.NDArray[np.int32] = ((true_tokens + nodes) % vocab_size).astype(np.int32)
        path: tuple[int, ...] = ()
        for ranks in self._accuracies:
            drawn = self._random.random()
            rank = 0
            while rank < len(ranks) and drawn >= ranks[rank]:
                drawn -= ranks[rank]
                rank += 1
            path = (*path, rank)
            if path not in self._node_of:
                break
            tokens[self._node_of[path]] = truth[len(path) - 1]
        return tokens


def bench_decoding(
    model: SyntheticModel,
    heads: _C.Heads,
    node_counts: Sequence[int],
    length: int,
    steps: int,
    kv_dtype: str,
    bytes_per_second: float,
) -> list[Decoding]:
    """Decodes from a prompt of `length` tokens with trees of each size; 1 is plain decoding."""
    accuracies = published_accuracies(size=model.shape.published)
    trees = nested_from_accuracies(accuracies)
    room = length + (steps + 4) * (len(accuracies) + 1)
    session = _C.Session(model.native, 1, room, max(node_counts), kv_dtype)
    session.set_active([0])
    found = []
    for num_nodes in node_counts:
        found.append(
            _decode(
                session, model, heads, trees, num_nodes, length, steps, kv_dtype, bytes_per_second
            )
        )
    return found


def _decode(
    session: _C.Session,
    model: SyntheticModel,
    heads: _C.Heads,
    trees: NestedTrees,
    num_nodes: int,
    length: int,
    steps: int,
    kv_dtype: str,
    bytes_per_second: float,
) -> Decoding:
    shape, tree = model.shape, trees.tree(num_nodes)
    replay = ReplayedTree(tree, published_accuracies(size=shape.published), seed=num_nodes)
    prompt = np.arange(length, dtype=np.int32) % shape.vocab_size
    session.truncate(0, 0)
    session.prefill(0, prompt)
    times, emitted, divergences = [], 0, 0
    # The first steps of a kind let buffers grow and, on a GPU, record the step.
    for step in range(-4, steps):
        root = session.roots[0]
        truth = model.continuation(root, tree.max_depth + 1)
        propose = partial(_propose, session, heads, tree, replay, truth, shape.vocab_size)
        _, seconds = run_step(session, propose)
        produced = session.emitted(0)
        divergences += list(produced) != truth[: len(produced)]
        if step >= 0:
            times.append(seconds)
            emitted += len(produced)
    read = model.native.packed_bytes - shape.vocab_size * shape.hidden_size * _bytes_of(model)
    read += heads.packed_bytes if tree.num_nodes > 1 else 0
    element = 4 if kv_dtype == "float32" else 2
    read += 2 * shape.num_layers * shape.hidden_size * element * length
    return Decoding(
        shape.name,
        tree.num_nodes,
        length,
        emitted / steps,
        1e3 * median(times),
        emitted / sum(times),
        read,
        read / median(times) / bytes_per_second,
        divergences,
        tree.num_nodes > 1,
    )


def _propose(
    session: _C.Session,
    heads: _C.Heads,
    tree: Tree,
    replay: ReplayedTree,
    truth: Sequence[int],
    vocab_size: int,
) -> bool:
    """The heads draft, at their cost; then the replayed guesses take their places."""
    if tree.num_nodes == 1:
        return False
    session.draft_heads(heads, tree.native)
    session.set_tree(0, replay.tokens(session.roots[0], truth, vocab_size), replay.parents)
    return True


def _bytes_of(model: SyntheticModel) -> int:
    """Bytes of an element of the embedding, of which a step reads a few rows only."""
    return 4 if model.native.formats["embed"] == "float32" else 2

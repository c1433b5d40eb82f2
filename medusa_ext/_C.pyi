"""The native module: models, heads and sessions. Arrays are C-contiguous numpy arrays."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .checkpoints.config import ModelConfig

Int32Array = npt.NDArray[np.int32]
Float32Array = npt.NDArray[np.float32]

MAX_NODES: int
"""Nodes that a tree can have, the root included."""

MAX_HEAD_RANKS: int
"""Guesses of a head that a tree can use."""

def default_isa() -> str:
    """The instruction set in use: the one MEDUSA_ISA names, or else the best."""

def available_isas() -> list[str]:
    """Instruction sets this machine can run, best first, e.g. ["avx512", "avx2", "generic"]."""

def devices() -> list[str]:
    """Devices that this build has a backend for: "cpu", perhaps "cuda"."""

def weight_formats(device: str) -> list[str]:
    """Formats that matrices can have on an entry of devices(), finest first; the device itself need
    not be present. ValueError for any other name."""

def set_num_threads(num_threads: int) -> None:
    """Threads that forwards of this process use from now on, instead of MEDUSA_NUM_THREADS or
    torch's. ValueError if < 1 or beyond the machine's processors."""

def num_threads() -> int: ...

class TokenTree:
    """A fixed tree of heads' ranks: node n of depth d > 0 takes rank ranks[n] of head d - 1."""

    def __init__(self, parents: Sequence[int], ranks: Sequence[int]) -> None:
        """Nodes breadth first, by (depth, ranks along the path); node 0 is the root, with parent
        -1 and rank 0. ValueError for any other order, a rank outside 0 ... MAX_HEAD_RANKS - 1 or
        more than MAX_NODES nodes."""

    @property
    def num_nodes(self) -> int: ...
    @property
    def max_depth(self) -> int: ...
    @property
    def parents(self) -> list[int]: ...
    @property
    def ranks(self) -> list[int]: ...
    @property
    def depth_offsets(self) -> list[int]:
        """[max_depth + 2]: the first node of each depth, and the number of nodes."""

class ModelBuilder:
    """Packs weights tensor by tensor, under the canonical names of `checkpoints.weights`."""

    def __init__(
        self,
        config: ModelConfig,
        formats: Mapping[str, str],
        isa: str = "",
        device: str = "cpu",
        deterministic: bool = False,
    ) -> None:
        """config: read attribute by attribute (csrc/model/config.h has the list).
        formats: canonical matrix name -> one of weight_formats(device).
        isa: an entry of available_isas(), "" for default_isa().
        device: an entry of devices(). RuntimeError if there is no such device.
        deterministic: CUDA only; a row's result follows the number of rows less."""

    def set_rows(self, name: str, first_row: int, source_type: str, data: npt.NDArray[Any]) -> None:
        """Rows of a matrix: `data` is [rows, bytes or elements per row] in `source_type`:
        "F32" | "BF16" | "F16" | "Q8_0" | "Q4_0" | "Q4_1"."""

    def set_vector(self, name: str, data: Float32Array) -> None:
        """A norm's weight or a bias."""

    def finish(self) -> Model:
        """ValueError naming the tensors that are missing or incomplete. Empties the builder."""

class Model:
    """Immutable packed weights."""

    @property
    def isa(self) -> str: ...
    @property
    def packed_bytes(self) -> int: ...
    @property
    def formats(self) -> dict[str, str]: ...
    @property
    def supported_formats(self) -> list[str]:
        """Formats that matrices can have on this model's device, finest first."""

class HeadsBuilder:
    """Medusa heads for `model`. Matrices: `{k}.{l}.weight` [H, H] (of kind "root", `{k}.0.weight`
    is [H, 2H]: the block's own weight beside the root embedding's), `{k}.{l}.bias` [H]; with
    lm_head "shared" `lm_head` [V', H], with "own" `{k}.lm_head` [V', H]."""

    def __init__(
        self,
        model: Model,
        num_heads: int,
        num_layers: int,
        kind: str,
        lm_head: str,
        block_format: str = "float32",
        lm_head_format: str = "float32",
        token_map: Int32Array | None = None,
    ) -> None:
        """kind: "medusa" | "root". lm_head: "base" | "shared" | "own".
        token_map: [V'] draft id -> token id; None: V' is the vocabulary."""

    def set_rows(
        self, name: str, first_row: int, source_type: str, data: npt.NDArray[Any]
    ) -> None: ...
    def set_vector(self, name: str, data: Float32Array) -> None: ...
    def finish(self) -> Heads: ...

class Heads:
    """Immutable Medusa heads of one model."""

    @property
    def num_heads(self) -> int: ...
    @property
    def num_layers(self) -> int: ...
    @property
    def kind(self) -> str: ...
    @property
    def draft_vocab_size(self) -> int: ...
    @property
    def packed_bytes(self) -> int: ...
    @property
    def formats(self) -> dict[str, str]:
        """Those of "blocks" and of the "lm_head" that they score with."""

class Session:
    """A KV cache and the state of B sequences. Not for two threads at once: that raises
    RuntimeError. The GIL is released in prefill, draft_*, verify, accept and compact.

    One step: begin_step(); drafters add nodes; verify(); accept(); compact(); emitted(b)."""

    def __init__(
        self,
        model: Model,
        batch: int,
        max_length: int,
        max_nodes: int,
        kv_dtype: str = "float32",
        kv_memory: int = 0,
    ) -> None:
        """Cache of max_length + max_nodes rows per sequence, in pages. `kv_memory`: bytes that its
        pages may take at most, 0: what all sequences need at their longest. A CPU's memory is taken
        as texts grow. MemoryError names the size; ValueError: too little for one sequence."""

    @property
    def batch(self) -> int: ...
    @property
    def max_length(self) -> int: ...
    @property
    def max_nodes(self) -> int: ...
    @property
    def lengths(self) -> list[int]:
        """Cache rows that are valid, per sequence: the tokens whose K/V is there."""

    @property
    def roots(self) -> list[int]:
        """The next token of each sequence, decided but without a K/V row; -1: not prefilled."""

    def set_sampling(
        self,
        b: int,
        temperature: float = 0.0,
        top_p: float = 1.0,
        top_k: int = 0,
        seed: int = 0,
        acceptance: str = "lossless",
        epsilon: float = 0.09,
        delta: float = 0.3,
    ) -> None:
        """How sequence b's targets are drawn from its next verify or prefill on. temperature 0:
        greedy, as all are at first."""

    def prefill(self, b: int, tokens: Int32Array, *, keep_hidden: bool = False) -> int:
        """Append tokens to sequence b in chunks; the next token (greedy or drawn) becomes its root.
        With keep_hidden, prefill_hidden() returns the final-norm output of every token."""

    def prefill_hidden(self) -> Float32Array:
        """[tokens, H] of the last prefill with keep_hidden."""

    def begin(self, b: int, tokens: Int32Array, max_tokens: int = 0) -> int:
        """Starts sequence b afresh, from the longest start of `tokens` that the cache holds, of
        this or another text; returns the rows it has then, fewer than len(tokens): the rest is to
        be fed. The sequence can grow to `max_tokens` tokens (0: max_length) whatever others do.
        MemoryError, with the sequence empty, if there is no room for that."""

    def can_begin(self, tokens: Int32Array, max_tokens: int = 0) -> bool:
        """Whether `begin` finds room now, for a sequence that is free."""

    def free(self, b: int) -> None:
        """Forgets a sequence's text. Its rows stay for texts that begin alike, until others need
        the room; those that were not used for the longest time go first."""

    def cache_stats(self) -> dict[str, int]:
        """page_rows, page_bytes; pages, of which pages_free hold nothing and pages_idle rows of
        freed texts; begins, hits (begins that found rows), rows_reused."""

    def truncate(self, b: int, length: int, root: int = -1) -> None:
        """Forget everything from position `length` on; `root` becomes the next token (-1: none)."""

    def set_active(self, sequences: Sequence[int]) -> None:
        """The sequences that take part in the next steps; all after construction."""

    def set_end_tokens(self, b: int, tokens: Sequence[int]) -> None:
        """After one of these a step of sequence b emits nothing from now on: it becomes the root.
        None at first. (Where a prefill decides one, the caller has to see that.)"""

    # ---- one step
    def begin_step(self) -> None:
        """Every active sequence's tree is its root alone; one without a root has to be fed."""

    def feed(self, b: int, tokens: Int32Array, last: bool) -> None:
        """The step appends a piece of a prompt to active sequence b, in the place of its root and
        tree (put the root first where there is one). If it is the last piece, the token after it is
        decided as prefill would decide it, becomes the root, and is all that emitted(b) has; else
        emitted(b) is empty and there is no root. ValueError if b is not active or was fed in this
        step, or where the tokens do not fit; RuntimeError outside a step's drafting."""

    def add_node(self, b: int, parent: int, token: int) -> int:
        """A child of `parent`; an equal sibling is reused. The node's index, or -1 where the tree
        or the cache has no room (too many nodes, deeper than max_length)."""

    def set_tree(self, b: int, tokens: Int32Array, parents: Int32Array) -> None:
        """The whole tree at once, the root included (tokens[0] must be the root)."""

    def draft_for(self, sequences: Sequence[int]) -> None:
        """Heads and lookup draft for these of the active sequences from now on, until the next
        begin_step; for all at first."""

    def draft_heads(self, heads: Heads, tree: TokenTree) -> None:
        """Adds the heads' candidates for every sequence drafted for, arranged as `tree`. On a GPU
        the step itself finds them: their tokens in tree() are negative, equal siblings merge
        later."""

    def draft_lookup(
        self, max_nodes: int, max_ngram: int, min_ngram: int, max_branches: int
    ) -> int:
        """Adds continuations of earlier n-gram matches in the sequence's own text (prompt and
        output so far), longest and latest first, up to max_nodes drafted nodes. The number of
        sequences drafted for with a match."""

    def look_up(self, b: int, max_nodes: int, max_ngram: int, min_ngram: int) -> list[int]:
        """The max_nodes tokens that lookup would draft for sequence b, which stays as it is; none
        where nothing matches."""

    def tree(self, b: int) -> tuple[Int32Array, Int32Array]:
        """(tokens, parents) of the step's tree, the root included."""

    def verify(self) -> None:
        """One forward over the trees of all active sequences."""

    def accept(self) -> None:
        """Walks each tree; roots become the next tokens."""

    def compact(self) -> None:
        """Moves the accepted rows together; lengths advance."""

    def failure(self, b: int) -> str:
        """Where the last step's logits of b were not finite, so that no token followed: the layer
        in which that begins, searched for now, which loses the step's rows. Empty otherwise."""

    def check_finite(self) -> None:
        """RuntimeError with the first failure of the last step, if there is one."""

    def emitted(self, b: int) -> list[int]:
        """Tokens that the last step decided for b: the accepted nodes below the root, then the next
        root. (The old root was emitted by the step before.)"""

    def accepted_path(self, b: int) -> list[int]:
        """Node indices of the last step's accepted path, the root included."""

    # ---- views for training, logprobs and tests
    def path_hidden(self, b: int) -> Float32Array:
        """[count, H]: final-norm output of the last step's accepted nodes, root first; of all
        tokens that it fed."""

    def set_profiling(self, profiling: bool) -> None:
        """Whether each phase of a step and each kernel waits for its own work, for the sake of its
        time; on a GPU that costs time. Off at first."""

    def kernel_seconds(self) -> dict[str, float]:
        """Seconds by kernel while profiling was on, ever since; of those that ran."""

    def keep_logits(self, b: int, keep: bool) -> None:
        """Whether prefill and verify store logits of sequence b (always so when it samples)."""

    def path_logits(self, b: int) -> Float32Array:
        """[count, V]: logits at the last step's accepted nodes, root first (keep_logits); of a
        prompt's last piece those at its last token, of others none."""

    def prefill_logits(self) -> Float32Array:
        """[V]: logits that decided the root of the last prefill (keep_logits)."""

    def tree_logits(self, b: int) -> Float32Array:
        """[N, V]: logits of every node of the last verify (keep_logits)."""

    def text(self, b: int) -> Int32Array:
        """Tokens of the sequence whose K/V is in the cache."""

    def head_candidates(self, heads: Heads, top_k: int) -> tuple[Int32Array, Float32Array]:
        """(ids, log-probabilities) [B active, K, top_k] of the heads at the present state."""

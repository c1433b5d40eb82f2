"""Drafters that learn nothing: a fixed tree of heads' guesses, lookup, both, or none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from .trees import NestedTrees, Tree

if TYPE_CHECKING:
    from .. import _C

# Matches of three tokens and more are mostly right; shorter ones help only where nothing else
# drafts.
MIN_NGRAM_ALONE: Final = 2
MIN_NGRAM_COMBINED: Final = 3
MAX_NGRAM: Final = 6
MAX_RANKS: Final = 32  # guesses of a head that the native module keeps, its MAX_HEAD_RANKS


class FixedDrafter:
    """Common to the drafters that learn nothing: `observe` does nothing."""

    def observe(self, emitted: Sequence[Sequence[int]], seconds: float) -> None:
        """What a step emitted makes no difference."""


class NoDrafter(FixedDrafter):
    """Plain decoding: every tree is its root."""

    name = "none"
    max_nodes = 1

    def propose(self, session: _C.Session, active: Sequence[int]) -> bool:
        """Adds nothing."""
        return False


class HeadsDrafter(FixedDrafter):
    """The heads' guesses, arranged as one static tree."""

    name = "heads"

    def __init__(self, heads: _C.Heads, tree: Tree) -> None:
        """Raises ValueError if the tree is deeper than there are heads."""
        check_tree(heads, tree)
        self._heads = heads
        self._tree = tree.native
        self.max_nodes = tree.num_nodes

    def propose(self, session: _C.Session, active: Sequence[int]) -> bool:
        """Adds the tree for every active sequence."""
        if self.max_nodes == 1:
            return False
        session.draft_heads(self._heads, self._tree)
        return True


class LookupDrafter(FixedDrafter):
    """Prompt lookup: what followed the last few tokens where they occurred before."""

    name = "lookup"

    def __init__(
        self, max_nodes: int, min_ngram: int = MIN_NGRAM_ALONE, max_branches: int = 1
    ) -> None:
        self.max_nodes = max_nodes
        self._min_ngram = min_ngram
        self._max_branches = max_branches

    def propose(self, session: _C.Session, active: Sequence[int]) -> bool:
        """Adds the continuations of matches where there are any."""
        drafted = self.max_nodes - 1
        if drafted == 0:
            return False
        return session.draft_lookup(drafted, MAX_NGRAM, self._min_ngram, self._max_branches) > 0


class CombinedDrafter(FixedDrafter):
    """Lookup where at least three tokens match, the heads' nodes in the rest of the tree.

    A tree has at most `max_nodes` nodes. Where lookup drafts, it takes half of the drafted nodes
    (rounded up) and the heads the best tree of the others; a node that both propose is shared.
    """

    name = "both"

    def __init__(self, heads: _C.Heads, full: Tree, beside_lookup: Tree) -> None:
        """`full`: the heads' tree where lookup finds nothing; `beside_lookup`: where it drafts."""
        for tree in (full, beside_lookup):
            check_tree(heads, tree)
        self._heads = heads
        self._full = full.native
        self._beside = beside_lookup.native
        self._lookup_nodes = full.num_nodes - beside_lookup.num_nodes
        self._has_heads = beside_lookup.num_nodes > 1
        self.max_nodes = full.num_nodes

    @classmethod
    def of_size(cls, heads: _C.Heads, trees: NestedTrees, num_nodes: int) -> CombinedDrafter:
        """With the best trees of at most `num_nodes` nodes."""
        full = trees.tree(num_nodes)
        return cls(heads, full, trees.tree(1 + (full.num_nodes - 1) // 2))

    @classmethod
    def of_tree(cls, heads: _C.Heads, tree: Tree) -> CombinedDrafter:
        """With a given tree, beside lookup its first half."""
        return cls(heads, tree, tree.first(1 + (tree.num_nodes - 1) // 2))

    def propose(self, session: _C.Session, active: Sequence[int]) -> bool:
        """Adds lookup's nodes first, then the heads'."""
        if self.max_nodes == 1:
            return False
        matched = self._lookup_nodes and session.draft_lookup(
            self._lookup_nodes, MAX_NGRAM, MIN_NGRAM_COMBINED, 1
        )
        if not matched:
            session.draft_heads(self._heads, self._full)
        elif self._has_heads:
            session.draft_heads(self._heads, self._beside)
        return True


def check_tree(heads: _C.Heads, tree: Tree) -> None:
    """Raises ValueError if a tree is deeper than there are heads to fill it."""
    if tree.max_depth > heads.num_heads:
        raise ValueError(
            f"tree: needs depth at most {heads.num_heads} (the model's heads), got {tree.max_depth}"
        )

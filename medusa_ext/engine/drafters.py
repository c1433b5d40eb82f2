"""The drafter that a request's options ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..drafting.auto import AutoDrafter
from ..drafting.drafter import Drafter
from ..drafting.fixed import MAX_RANKS, CombinedDrafter, HeadsDrafter, LookupDrafter, NoDrafter
from ..drafting.trees import Tree
from .model import DEFAULT_MAX_NODES, Model
from .options import Options

if TYPE_CHECKING:
    from .. import _C


def tree_nodes(options: Options) -> int:
    """Nodes of the largest tree that the options may lead to."""
    if not isinstance(options.draft, str):
        return options.draft.max_nodes
    if isinstance(options.tree, Tree):
        return options.tree.num_nodes
    if isinstance(options.tree, int):
        return options.tree
    return 1 if options.tree is None else DEFAULT_MAX_NODES


def make_drafter(model: Model, options: Options, max_nodes: int) -> Drafter:
    """The drafter that the options ask for, for sessions with trees of up to `max_nodes` nodes.

    Raises ValueError where they do not fit the model or the session.
    """
    tree, draft = options.tree, options.draft
    if not isinstance(draft, str):
        _check_size(draft.max_nodes, max_nodes)
        return draft
    if draft in ("heads", "both"):
        model.trees()
    if draft == "auto":
        draft = "lookup" if model.heads is None else "both"
    if tree is None or tree == 1 or max_nodes == 1:
        return NoDrafter()
    if isinstance(tree, str):
        return _auto_drafter(model, draft, max_nodes)
    num_nodes = tree if isinstance(tree, int) else _given_tree_nodes(tree)
    _check_size(num_nodes, max_nodes)
    if model.heads is None or draft == "lookup":
        if isinstance(tree, Tree):
            raise ValueError("tree: a Tree arranges the guesses of heads, needs heads, got none")
        return LookupDrafter(num_nodes)
    if isinstance(tree, Tree):
        given = HeadsDrafter if draft == "heads" else CombinedDrafter.of_tree
        return given(model.heads, tree)
    if draft == "heads":
        return HeadsDrafter(model.heads, model.trees().tree(num_nodes))
    return CombinedDrafter.of_size(model.heads, model.trees(), num_nodes)


def _given_tree_nodes(tree: Tree) -> int:
    """A Tree's nodes; ValueError if it takes guesses that heads do not make."""
    highest = max((path[-1] for path in tree.paths), default=0)
    if highest >= MAX_RANKS:
        raise ValueError(f"tree: needs ranks below {MAX_RANKS}, got {highest}")
    return tree.num_nodes


def _check_size(num_nodes: int, max_nodes: int) -> None:
    if num_nodes > max_nodes:
        raise ValueError(f"tree: needs at most the session's {max_nodes} nodes, got {num_nodes}")


def _auto_drafter(model: Model, draft: str, max_nodes: int) -> Drafter:
    heads: _C.Heads | None = None if draft == "lookup" else model.heads
    return AutoDrafter(
        model.live_costs(),
        min(max_nodes, DEFAULT_MAX_NODES),
        use_lookup=draft != "heads",
        heads=heads,
        trees=None if heads is None else model.trees(),
    )

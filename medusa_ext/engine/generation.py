"""One call of generate or stream: from checked arguments to results."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..drafting.auto import AutoDrafter
from ..drafting.drafter import Drafter
from ..drafting.fixed import MAX_RANKS, CombinedDrafter, HeadsDrafter, LookupDrafter, NoDrafter
from ..drafting.trees import Tree
from ..text.detokenizer import Detokenizer, special_ids
from ..text.prompts import EncodedPrompt, encode, split_batch
from ..text.stopping import StopTokens
from .continuation import Continuation
from .decoding import decode
from .model import DEFAULT_MAX_NODES, Model
from .options import Options
from .results import Clock, Result
from .session import Session

if TYPE_CHECKING:
    from .. import _C

_CONTEXT_TOKENS = 4


class Run:
    """A generation over the sequences of a session, which it holds while it is open."""

    def __init__(
        self,
        session: Session,
        prompts: Sequence[EncodedPrompt],
        options: Options,
        *,
        is_batch: bool,
        incremental: bool,
    ) -> None:
        self.is_batch = is_batch
        self.continuations: list[Continuation] = []
        self._session = session
        self._prompts = prompts
        self._options = options
        self._incremental = incremental
        self._clock = Clock()
        self._drafter = make_drafter(session.model, options, session.max_nodes)
        self._seeds = options.seeds(session.batch)

    @classmethod
    @contextlib.contextmanager
    def open(
        cls, target: Any, prompt: Any, options: Options, *, incremental: bool = False
    ) -> Iterator[Run]:
        """Checks and encodes the prompts and takes hold of a session for them."""
        if not isinstance(target, Model | Session):
            need = "a Model or a Session"
            raise TypeError(f"model: needs {need}, got {type(target).__name__}")
        if isinstance(target, Session):
            with target.exclusive():
                prompts, is_batch = encode_for_session(target, prompt)
                yield cls(target, prompts, options, is_batch=is_batch, incremental=incremental)
            return
        items, is_batch = split_batch(prompt)
        vocab = target.config.vocab_size
        prompts = [encode(target.tokenizer, vocab, item, continues=False) for item in items]
        longest = max(len(one.tokens) for one in prompts)
        nodes = tree_nodes(options)
        length = longest + options.max_new_tokens
        with target.borrowed_session(len(prompts), length, nodes) as session:
            with session.exclusive():
                yield cls(session, prompts, options, is_batch=is_batch, incremental=incremental)

    def steps(self) -> Iterator[None]:
        """Prefills, then decodes; yields after the prefills and after every step.

        An exception (of a drafter, say) carries what was decoded before it: its `results` are those
        of the sequences that had begun, with the finish reason "error" where it cut one short.
        """
        try:
            self._prefill()
            yield
            self._clock.restart()
            yield from decode(self._session.native, self._drafter, self.continuations, self._clock)
        except Exception as error:
            for one in self.continuations:
                one.fail()
            error.results = self.results()  # type: ignore[attr-defined]
            raise

    def results(self) -> list[Result]:
        """The finished results, in the order of the prompts."""
        results = []
        for b, one in enumerate(self.continuations):
            stats = one.stats
            stats.draft = self._drafter.name
            if isinstance(self._drafter, AutoDrafter) and 0 < stats.steps == stats.plain_steps:
                stats.note = "decoded plainly: no draft found would have paid on this machine"
            results.append(one.result(self._seeds[b] if self._seeds else None))
        self._clock.lap("host")
        # A GPU's steps are one piece of work unless they are profiled.
        by_phase = self._options.profile or self._session.model.device == "cpu"
        for result in results:
            result.stats.seconds = self._clock.report(by_phase)
        return results

    def _prefill(self) -> None:
        options, native = self._options, self._session.native
        for b in range(self._session.batch):
            native.set_sampling(
                b,
                options.temperature,
                options.top_p,
                min(options.top_k, self._session.model.config.vocab_size),
                self._seeds[b] if self._seeds else 0,
                options.acceptance,
                options.epsilon,
                options.delta,
            )
            native.set_end_tokens(b, self._end_ids())
            native.keep_logits(b, options.logprobs > 0)
        native.set_profiling(options.profile)
        self._clock.lap("host")
        for b, prompt in enumerate(self._prompts):
            first, num_tokens, reused = self._session.feed(b, prompt)
            self._clock.lap("prefill")
            one = self._continuation(b, prompt)
            one.stats.prompt_tokens = num_tokens
            one.stats.reused_tokens = reused
            one.start(native, first)
            self.continuations.append(one)
            self._clock.lap("host")

    def _end_ids(self) -> list[int]:
        """Tokens behind which a step need not emit anything."""
        options, model = self._options, self._session.model
        end_ids = frozenset() if options.ignore_eos else model.eos_ids
        return sorted(end_ids | set(control_ids(model, options.stop).values()))

    def _continuation(self, b: int, prompt: EncodedPrompt) -> Continuation:
        """The empty continuation of sequence b, whose prompt has been fed."""
        options, model = self._options, self._session.model
        decoder = model.text_decoder
        stop_ids = control_ids(model, options.stop)
        # Raw text goes on in the middle of a line, a chat's answer is a text of its own.
        context = () if prompt.whole else prompt.tokens[-_CONTEXT_TOKENS:]
        return Continuation(
            self._session.native.lengths[b],
            StopTokens(
                frozenset() if options.ignore_eos else model.eos_ids,
                frozenset(stop_ids.values()),
                options.max_new_tokens,
                self._session.max_length,
            ),
            [string for string in options.stop if string not in stop_ids],
            Detokenizer(decoder, context),
            incremental=self._incremental,
            num_logprobs=options.logprobs,
        )


def encode_for_session(session: Session, prompt: Any) -> tuple[list[EncodedPrompt], bool]:
    """The prompts of a session's sequences; None continues each as it stands.

    Raises ValueError unless there is one prompt per sequence.
    """
    model = session.model
    roots = session.native.roots
    if prompt is None:
        if min(roots) < 0:
            raise ValueError("prompt: a session without any text needs one, got None")
        return [EncodedPrompt((), whole=False)] * session.batch, session.batch > 1
    items, is_batch = split_batch(prompt)
    if len(items) != session.batch:
        raise ValueError(
            f"prompt: needs one for each of the session's {session.batch} sequences, "
            f"got {len(items)}"
        )
    vocab = model.config.vocab_size
    encoded = [
        encode(model.tokenizer, vocab, item, continues=root >= 0)
        for item, root in zip(items, roots, strict=True)
    ]
    return encoded, is_batch


def control_ids(model: Model, stop: Sequence[str]) -> dict[str, int]:
    """Stop strings that are the spelling of a control token, which no text contains: their ids."""
    special = special_ids(model.text_decoder)
    found = {string: model.tokenizer.convert_tokens_to_ids(string) for string in stop}
    return {string: token for string, token in found.items() if token in special}


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

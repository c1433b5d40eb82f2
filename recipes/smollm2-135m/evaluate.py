"""Tokens per step of heads, prompt lookup and both on held-out prompts and HumanEval.

Decodes every prompt greedily and records the heads' ranks, then replays every drafter and tree
size; `--verify N` decodes N prompts for real with each drafter and fails if they disagree. Trees
come from the calibration stored with the heads, lookup and its combination with heads are those of
medusa_ext.drafting.fixed. Prompts are chat messages; HumanEval's are its first 40.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import medusa_ext
from medusa_ext.drafting.fixed import MAX_NGRAM, MIN_NGRAM_ALONE, MIN_NGRAM_COMBINED
from medusa_ext.drafting.trees import Tree
from medusa_ext.engine.model import Model
from medusa_ext.training.calibration import CalibrationOptions, Decoded, decode_with_ranks
from medusa_ext.training.data.loops import loop_start
from medusa_ext.training.data.prompts import Prompt, human_eval_prompts, prompt_from_json
from medusa_ext.training.data.self_prompts import encode_prompt
from medusa_ext.training.replay import TreeWalk

SIZES = (4, 8, 16, 32, 64)
HELD_OUT = Path(__file__).parents[2] / "benchmarks" / "prompts" / "held_out.jsonl"


class Lookup:
    """The native module's prompt lookup: the latest earlier match of the longest n-gram."""

    def __init__(self, text: Sequence[int], min_ngram: int) -> None:
        self._text = list(text)
        self._min = min_ngram
        self._latest: list[dict[tuple[int, ...], int]] = [{} for _ in range(MAX_NGRAM + 1)]
        self._ended = 0

    def draft(self, length: int, count: int) -> list[int]:
        """What followed the match, `count` tokens, where the text has its first `length`."""
        # Every n-gram that ends before the text's last token may be the earlier one.
        while self._ended < length - 1:
            self._ended += 1
            for n in range(self._min, min(MAX_NGRAM, self._ended) + 1):
                gram = tuple(self._text[self._ended - n : self._ended])
                self._latest[n][gram] = self._ended
        for n in range(min(MAX_NGRAM, length - 1), self._min - 1, -1):
            place = self._latest[n].get(tuple(self._text[length - n : length]))
            if place is not None:
                return [self._text[place + i % (length - place)] for i in range(count)]
        return []


def matching(draft: Sequence[int], true: Sequence[int]) -> int:
    """Tokens of a draft that are right."""
    pairs = enumerate(zip(draft, true, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(draft), len(true)))


def steps_of(one: Decoded, full: Tree | None, beside: Tree | None, lookup_nodes: int) -> int:
    """Steps that an answer takes: the heads' tree `full`, or where lookup (`lookup_nodes` > 0)
    matches its tokens with the tree `beside`. Without `full`, lookup alone."""
    tokens = one.tokens.tolist()
    text = [*one.prompt.tolist(), *tokens]
    ranks = one.ranks.tolist()
    walks = [None if tree is None else TreeWalk(tree) for tree in (full, beside)]
    lookup = Lookup(text, MIN_NGRAM_ALONE if full is None else MIN_NGRAM_COMBINED)
    position = steps = 0
    while position < len(tokens) - 1:
        done = len(one.prompt) + position + 1
        draft = lookup.draft(done, lookup_nodes) if lookup_nodes else []
        walk = walks[1] if draft else walks[0]
        accepted = 0 if walk is None else walk.accepted(ranks[position])
        accepted = max(accepted, matching(draft, tokens[position + 1 :]))
        position += accepted + 1
        steps += 1
    return steps


def tokens_per_step(
    answers: Sequence[Decoded], full: Tree | None, beside: Tree | None, lookup_nodes: int
) -> float:
    """Over all answers; the token that the prefill yields is left out."""
    kept = [one for one in answers if len(one.tokens) > 1]
    steps = sum(steps_of(one, full, beside, lookup_nodes) for one in kept)
    return sum(len(one.tokens) - 1 for one in kept) / steps


def rows_for(model: Model, answers: Sequence[Decoded], heads: str) -> dict[str, dict[int, float]]:
    """Tokens per step by drafter and tree size."""
    trees = model.trees()
    found: dict[str, dict[int, float]] = {heads: {}, f"{heads} with lookup": {}, "lookup": {}}
    for n in SIZES:
        full, beside = trees.tree(n), trees.tree(1 + (n - 1) // 2)
        lookup_nodes = full.num_nodes - beside.num_nodes
        found[heads][n] = tokens_per_step(answers, full, None, 0)
        found[f"{heads} with lookup"][n] = tokens_per_step(answers, full, beside, lookup_nodes)
        found["lookup"][n] = tokens_per_step(answers, None, None, n - 1)
    return found


def prompts_of(model: Model) -> dict[str, list[np.ndarray]]:
    """Token ids of both prompt sets."""
    lines = HELD_OUT.read_text(encoding="utf-8").splitlines()
    sets = {
        "held-out": [prompt_from_json(json.loads(line)) for line in lines],
        "HumanEval": [Prompt.ask(text, "t") for text in human_eval_prompts()[:40]],
    }
    vocab = model.config.vocab_size
    return {
        name: [encode_prompt(model.tokenizer, vocab, prompt) for prompt in prompts]
        for name, prompts in sets.items()
    }


def verify(model: Model, answers: Sequence[Decoded], count: int) -> list[dict[str, object]]:
    """Real decodes of `count` answers, spread over all, beside their replay.

    Exits with a message if they differ by more than 1 %.
    """
    found: list[dict[str, object]] = []
    chosen = [answers[i * len(answers) // count] for i in range(count)]
    trees = model.trees()
    for draft in ("heads", "both", "lookup"):
        for n in (8, 16):
            steps = tokens = 0
            for one in chosen:
                result = medusa_ext.generate(
                    model, one.prompt.tolist(), len(one.tokens), tree=n, draft=draft
                )
                assert result.tokens == one.tokens.tolist()
                steps += result.stats.steps
                tokens += len(result.tokens) - 1
            full, beside = trees.tree(n), trees.tree(1 + (n - 1) // 2)
            shapes = {
                "heads": (full, None, 0),
                "both": (full, beside, full.num_nodes - beside.num_nodes),
                "lookup": (None, None, n - 1),
            }
            told = tokens_per_step(chosen, *shapes[draft])
            found.append({"draft": draft, "N": n, "decoded": tokens / steps, "replayed": told})
            if abs(tokens / steps / told - 1) > 0.01:
                sys.exit(f"needs real decoding to agree with its replay, got {found[-1]}")
    return found


def table(rows: dict[str, dict[int, float]]) -> str:
    """Markdown rows."""
    lines = [f"| N | {' | '.join(map(str, SIZES))} |", "|---" * (len(SIZES) + 1) + "|"]
    for name, values in rows.items():
        lines.append(f"| {name} | " + " | ".join(f"{values[n]:.2f}" for n in SIZES) + " |")
    return "\n".join(lines)


def main() -> None:
    """Prints the tables, and everything as JSON with --json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("heads", nargs="+", help="packaged names or directories")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--max-new-tokens", type=int, default=128)
    parser.add_argument("--batch", type=int, default=35)
    parser.add_argument("--verify", type=int, default=0, metavar="PROMPTS")
    parser.add_argument("--json", type=Path)
    parser.add_argument(
        "--at-least",
        type=float,
        default=0.0,
        metavar="TOKENS",
        help="fail if heads of 16 nodes take fewer tokens per step, loops left out",
    )
    args = parser.parse_args()
    options = CalibrationOptions(
        model=args.model, max_new_tokens=args.max_new_tokens, num_ranks=16, batch=args.batch
    )
    report: dict[str, object] = {}
    for heads in args.heads:
        name = Path(heads).name
        model = medusa_ext.load(args.model, heads, dtype=args.dtype)
        answers = {
            kind: decode_with_ranks(model, prompts, options)
            for kind, prompts in prompts_of(model).items()
        }
        answers["all"] = answers["held-out"] + answers["HumanEval"]
        for kind, whole in answers.items():
            cut = [one.cut(loop_start(one.tokens.tolist())) for one in whole]
            for what, part in (("without loops", cut), ("whole answers", whole)):
                rows = rows_for(model, part, name)
                report[f"{name}: {kind}, {what}"] = rows
                count = sum(len(one.tokens) for one in part)
                print(f"\n{name}: {kind}, {what} ({count} tokens)\n{table(rows)}")
        alone = report[f"{name}: all, without loops"]
        assert isinstance(alone, dict)
        if alone[name][16] < args.at_least:
            sys.exit(f"{heads}: needs {args.at_least} tokens per step, got {alone[name][16]:.2f}")
        if args.verify:
            report[f"{name}: verified"] = verify(model, answers["all"], args.verify)
            print(json.dumps(report[f"{name}: verified"], indent=1))
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""A run of `python -m benchmarks cpu` as text and as docs/performance.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .limits import PEAK_NAMES

if TYPE_CHECKING:
    from .cpu import Report
    from .rows import Row

TITLES: Final = {
    "limits": ("Limits", ""),
    "decode": (
        "Plain decoding",
        "{new} tokens after a prompt of {prompt}; bytes are those of all packed matrices. "
        "llama.cpp through its C interface: one `llama_decode` per token and an arg-max in numpy. "
        "Memory is read in turns with decoding, as its bandwidth changes with what neighbours do.",
    ),
    "rows": (
        "One forward of M rows",
        "A chain of M nodes after {context} cached tokens, with the targets (llama.cpp and "
        "transformers: the logits) of all rows.",
    ),
    "prefill": (
        "Prefill",
        "{prefill} tokens from nothing, last row's logits; against the faster of the peers. "
        "Our sums are float32 in one order for every number of rows; torch uses the processor's "
        "own bfloat16 dot products where it has them.",
    ),
    "arithmetic": (
        "Arithmetic",
        "The plain matrix products of a layer (QKV, O, down) at 16 rows with the weights in the "
        "caches, against the same instruction sequence on registers alone, by the "
        "micro-benchmarks. Beside: the products of a whole step, weights from memory, with their "
        "share of what the slower of memory and arithmetic allows.",
    ),
    "rest": (
        "Outside matrix products and attention",
        "A step's verification with every kernel timed, as `profile=True` does; fused epilogues "
        "(SiLU, residual, arg-max) count as part of their product.",
    ),
    "overhead": ("Outside the forward", "propose + accept + compact + Python, per step."),
    "attention": (
        "Attention",
        "The operator alone, over the caches of 30 layers in turn; SDPA with shared or repeated "
        "KV heads, whichever is faster. One node shares a KV head among too few queries for the "
        "arithmetic to hide behind memory: transposing keys takes as many cycles as multiplying.",
    ),
    "memory": (
        "Memory",
        "Peak of anonymous memory while loading and generating, above that after all imports, in a "
        "fresh process.",
    ),
    "fastest": (
        "Fastest configuration",
        "Held-out prompts through the chat template, {generated} tokens each; tokens per second "
        "after the prefill, the mean of the sets. llama.cpp's server, plain and with its own "
        "n-gram lookup.",
    ),
    "batches": (
        "Batches",
        "Held-out prompts through the chat template, {batched} tokens each, decoded together; "
        "tokens per second of all sequences after their prefills. "
        "The nodes of all sequences are the rows of one forward.",
    ),
    "requests": (
        "Requests that come and go",
        "The engine, drafts and trees as they come without any option. Batches are calls of "
        "`generate` one after another. Prompts enter in chunks beside the texts that grow.",
    ),
    "quality": (
        "Quality",
        "Perplexity on the Python standard library's docstrings. llama.cpp's Q8_0 has weights and "
        "activations of 8 bits in groups of 32, as int8 has.",
    ),
}


def table(report: Report) -> str:
    """All rows as aligned text."""
    missed = sum(row.met is False for row in report.rows)
    with_bar = sum(row.met is not None for row in report.rows)
    return f"{rows_table(report.rows)}\n{with_bar - missed} of {with_bar} bars reached"


def rows_table(rows: Sequence[Row], details: bool = False) -> str:
    """Rows as aligned text; `details` adds what was measured."""
    width = max((len(row.what) for row in rows), default=0)
    lines = []
    for row in rows:
        mark = {True: "ok", False: "SHORT", None: ""}[row.met]
        line = f"{row.what:{width}} {value_text(row):>10} {bar_text(row):>10} {mark}"
        lines.append(line.rstrip())
        if row.value is None:
            lines.append(f"    {row.note}")
        if details:
            lines += [f"    {name}: {number_text(value)}" for name, value in row.details.items()]
    return "\n".join(lines)


def markdown(report: Report) -> str:
    """The page docs/performance.md."""
    parts = [
        "# Performance on CPUs",
        "",
        "Written by `python -m benchmarks cpu`; do not edit. Medians of at least "
        f"{report.sizes.repeats} rounds in which all sides take turns. A machine shared with "
        "others drifts: ratios within a run hold better than the values.",
        "",
        *_machine(report),
        "",
    ]
    for section, (title, text) in TITLES.items():
        rows = [row for row in report.rows if row.section == section]
        if rows:
            parts += [f"## {title}", "", *_section(report, text, rows), ""]
    return "\n".join(parts)


def write(report: Report, path: Path) -> None:
    """Writes the page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(markdown(report), encoding="utf-8")


def _machine(report: Report) -> list[str]:
    facts = {**report.machine, **report.peers}
    lines = ["| | |", "|---|---|"]
    lines += [
        f"| {name} | {f'{value:.2f}' if isinstance(value, float) else value} |"
        for name, value in facts.items()
    ]
    limits = report.limits
    if limits is not None:
        lines.append(f"| DRAM read, {limits.threads} threads | {limits.read / 1e9:.1f} GB/s |")
        lines += [
            f"| {PEAK_NAMES[name]} ({limits.isa}), on registers | {peak / 1e9:.0f} GFLOP/s |"
            for name, peak in limits.peaks.items()
        ]
    return lines


def _section(report: Report, text: str, rows: list[Row]) -> list[str]:
    sizes = report.sizes
    lines = []
    if text:
        lines += [
            text.format(
                new=sizes.new_tokens,
                prompt=sizes.prompt_tokens,
                context=sizes.context,
                prefill=sizes.prefill_tokens,
                generated=sizes.prompt_new_tokens,
                batched=sizes.batch_new_tokens,
            ),
            "",
        ]
    lines += ["| what | value | bar | | measured |", "|---|---|---|---|---|"]
    for row in rows:
        mark = {True: "reached", False: "**missed**", None: ""}[row.met]
        details = ", ".join(f"{name} {number_text(value)}" for name, value in row.details.items())
        measured = "; ".join(part for part in (details, row.note) if part).replace("\n", " ")
        bar = bar_text(row)
        lines.append(f"| {row.what} | {value_text(row)} | {bar} | {mark} | {measured} |")
    return lines


def value_text(row: Row) -> str:
    """A row's value with its unit; shares as percentages."""
    return "-" if row.value is None else _with_unit(row.value, row.unit)


def bar_text(row: Row) -> str:
    """A row's bar with its direction."""
    if row.bar is None:
        return ""
    return f"{'≤' if row.at_most else '≥'} {_with_unit(row.bar, row.unit)}"


def _with_unit(value: float, unit: str) -> str:
    if unit == "":
        return f"{value:.1%}"
    if unit == "x":
        return f"{value:.3f}x" if 0.9 < value < 1.1 else f"{value:.2f}x"
    return f"{number_text(value)} {unit}"


def number_text(value: float) -> str:
    """Three or four digits."""
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"

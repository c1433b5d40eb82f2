"""The parts measured per weight format, beside llama.cpp and transformers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

from medusa_ext.engine.model import Model

from .format_table import FORMATS, Format
from .limits import PRODUCT_ROWS
from .llama_cpp import LlamaCpp
from .ours import Ours, StepParts
from .peers import Transformers
from .rows import Row, interleaved, seconds_of
from .setting import Setting


def measure_formats(setting: Setting) -> Iterator[Row]:
    """The sections decode, rows, prefill, arithmetic and rest, format by format."""
    if not any(map(setting.wants, ("decode", "rows", "prefill", "arithmetic", "rest"))):
        return
    peers: dict[str, Transformers] = {}
    for chosen in FORMATS:
        with ExitStack() as stack:
            bench = _FormatBench(setting, chosen, stack, peers)
            for section, part in bench.parts().items():
                if setting.wants(section):
                    setting.begin(f"{chosen.name}: {section}")
                    yield from part()
            if setting.wants("arithmetic") or setting.wants("rest"):
                setting.begin(f"{chosen.name}: parts of a step")
                yield from bench.step_parts()


class _FormatBench:
    def __init__(
        self,
        setting: Setting,
        chosen: Format,
        stack: ExitStack,
        peers: dict[str, Transformers],
    ) -> None:
        self._setting = setting
        self._format = chosen
        sizes = setting.sizes
        room = max(sizes.prefill_tokens, sizes.context + max(sizes.rows)) + 8
        path = setting.files(chosen.storage)
        self._ours = Ours(path, chosen.dtype, room, max(sizes.rows))
        self._llama: LlamaCpp | None = None
        if chosen.llama:
            self._llama = stack.enter_context(
                LlamaCpp(path, setting.threads, self._ours.vocab_size)
            )
        self._peers = peers

    def parts(self) -> dict[str, Callable[[], Iterator[Row]]]:
        return {"decode": self._decode, "rows": self._rows, "prefill": self._prefill}

    def _transformers(self) -> Transformers:
        dtype = self._format.transformers
        if dtype not in self._peers:
            self._peers[dtype] = Transformers(self._ours.model.config, dtype)
        return self._peers[dtype]

    def _decode(self) -> Iterator[Row]:
        setting, chosen, ours, llama = self._setting, self._format, self._ours, self._llama
        sizes = setting.sizes
        prompt = setting.tokens(sizes.prompt_tokens, ours.vocab_size)
        sides: dict[str, Callable[[], float | None]] = {
            "ours": lambda: ours.decode(prompt.tolist(), sizes.new_tokens)
        }
        if llama is not None:
            sides["llama.cpp"] = lambda: _llama_step(llama, prompt.tolist(), sizes.new_tokens)
        seconds = interleaved(sides | setting.memory_side(), sizes.repeats, lead_in=False)
        own = seconds["ours"]
        rate = ours.weight_bytes / own
        details = {"ours, ms/token": 1e3 * own, "tokens/s": 1 / own, "GB/s": rate / 1e9}
        read = seconds.get("memory")
        if read is not None:
            details["DRAM read, GB/s"] = read / 1e9
        share = rate / read if read is not None else None
        note = "" if read is not None else "no limits measured"
        what = f"{chosen.name}: share of DRAM read bandwidth"
        yield Row("decode", what, share, "", chosen.share, details=details, note=note)
        if llama is not None:
            yield Row(
                "decode",
                f"{chosen.name}: against llama.cpp {chosen.storage}",
                seconds["llama.cpp"] / own,
                "x",
                chosen.against,
                details={
                    "ours, ms/token": 1e3 * own,
                    "llama.cpp, ms/token": 1e3 * seconds["llama.cpp"],
                },
            )

    def _rows(self) -> Iterator[Row]:
        setting, chosen, ours, llama = self._setting, self._format, self._ours, self._llama
        sizes = setting.sizes
        text = setting.tokens(sizes.context, ours.vocab_size)
        ours.fill(text)
        peer = self._transformers()
        peer.fill(text)
        against = [rows for rows in (8, 16) if rows in sizes.rows]
        sides: dict[str, Callable[[], float | None]] = {}
        for rows in sizes.rows:
            sides[f"ours {rows}"] = partial(ours.forward_rows, rows)
        if llama is not None:
            llama.forward(text, 0, "last")
        for rows in against:
            tokens = setting.tokens(rows, ours.vocab_size)
            if llama is not None:
                forward = partial(llama.forward, tokens, sizes.context)
                sides[f"llama.cpp {rows}"] = partial(seconds_of, forward)
            forward_rows = partial(peer.forward_rows, rows)
            sides[f"transformers {rows}"] = partial(seconds_of, forward_rows)
        seconds = interleaved(sides, max(sizes.repeats, 7))
        one_row = seconds["ours 1"]
        for rows in sizes.rows[1:]:
            own = seconds[f"ours {rows}"]
            yield Row(
                "rows",
                f"{chosen.name}: {rows} rows over one",
                own / one_row,
                "x",
                chosen.rows.get(rows),
                at_most=True,
                details={"one row, ms": 1e3 * one_row, f"{rows} rows, ms": 1e3 * own},
            )
        for rows in against:
            own = seconds[f"ours {rows}"]
            for name, bar in (("llama.cpp", chosen.rows_against), ("transformers", None)):
                theirs = seconds.get(f"{name} {rows}")
                if theirs is None:
                    continue
                kind = chosen.storage if name == "llama.cpp" else chosen.transformers
                yield Row(
                    "rows",
                    f"{chosen.name}: {rows} rows against {name} {kind}",
                    theirs / own,
                    "x",
                    bar,
                    details={"ours, ms": 1e3 * own, f"{name}, ms": 1e3 * theirs},
                )

    def _prefill(self) -> Iterator[Row]:
        setting, chosen, ours, llama = self._setting, self._format, self._ours, self._llama
        count = setting.sizes.prefill_tokens
        tokens = setting.tokens(count, ours.vocab_size)
        peer = self._transformers()
        sides: dict[str, Callable[[], float | None]] = {"ours": lambda: ours.prefill(tokens)}
        if llama is not None:
            sides["llama.cpp"] = lambda: seconds_of(lambda: llama.forward(tokens, 0, "last"))
        sides[f"transformers {chosen.transformers}"] = lambda: seconds_of(
            lambda: peer.prefill(tokens)
        )
        seconds = interleaved(sides, setting.sizes.repeats, lead_in=False)
        best = min((time, name) for name, time in seconds.items() if name != "ours")
        yield Row(
            "prefill",
            f"{chosen.name}: {count} tokens against {best[1]}",
            best[0] / seconds["ours"],
            "x",
            1.1,
            details={f"{name}, tokens/s": count / time for name, time in seconds.items()},
        )

    def step_parts(self) -> Iterator[Row]:
        """The sections arithmetic and rest: steps whose kernels are timed."""
        setting, chosen = self._setting, self._format
        if chosen.peak is None and chosen.rest is None:
            return
        self._ours.fill(setting.tokens(setting.sizes.context, self._ours.vocab_size))
        repeats = max(setting.sizes.repeats, 7)
        if setting.wants("rest"):
            yield _rest_row(chosen, self._ours.step_parts(1, repeats))
        if setting.wants("arithmetic") and chosen.peak is not None:
            yield self._arithmetic_row(*chosen.peak, self._ours.step_parts(PRODUCT_ROWS, repeats))

    def _arithmetic_row(self, weights: str, bar: float, parts: StepParts) -> Row:
        limits = self._setting.limits
        operations = 2.0 * PRODUCT_ROWS * num_weights(self._ours.model)
        details = {
            "from memory, GFLOP/s": operations / parts.products / 1e9,
            "whole step, GFLOP/s": operations / parts.total / 1e9,
        }
        if limits is not None:
            peak = limits.peaks[weights]
            floor = max(operations / peak, self._ours.weight_bytes / limits.read)
            details |= {
                "weights in the caches, GFLOP/s": limits.products[weights] / 1e9,
                "peak, GFLOP/s": peak / 1e9,
                "from memory, share of the roofline, %": 100 * floor / parts.products,
            }
        return Row(
            "arithmetic",
            f"{self._format.name}: matrix products of {PRODUCT_ROWS} rows, share of the register "
            "peak",
            limits.products[weights] / limits.peaks[weights] if limits else None,
            "",
            bar,
            details=details,
            note="" if limits else "no limits measured",
        )


def _llama_step(llama: LlamaCpp, prompt: list[int], num_tokens: int) -> float:
    """Seconds per token of llama.cpp's plain decoding after the prefill."""
    llama.forward(prompt, 0, "last")
    return seconds_of(lambda: llama.extend(len(prompt), num_tokens)) / max(num_tokens - 1, 1)


def _rest_row(chosen: Format, parts: StepParts) -> Row:
    return Row(
        "rest",
        f"{chosen.name}: share of a plain step outside matrix products and attention",
        1.0 - (parts.products + parts.attention) / parts.total,
        "",
        chosen.rest,
        at_most=True,
        details={
            "step, ms": 1e3 * parts.total,
            "matrix products, ms": 1e3 * parts.products,
            "attention, ms": 1e3 * parts.attention,
        },
    )


def num_weights(model: Model) -> int:
    """Weights that a row is multiplied with, the lm_head's included."""
    config = model.config
    attention = 2 * (config.num_query_heads + config.num_kv_heads) * config.head_size
    layer = config.hidden_size * (attention + 3 * config.ffn_size)
    return config.num_layers * layer + config.vocab_size * config.hidden_size

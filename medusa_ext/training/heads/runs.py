"""A training run from directory to directory: data, steps, checkpoints, metrics, heads."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch

from ...checkpoints import open_source
from ...checkpoints.names import resolve_model
from ...extras import missing
from ...files import json_text, only_writer
from ..data.vocabulary import DraftVocabulary, choose_vocabulary
from ..processes import Processes
from ..torch_weights import vocabulary_matrices
from .dataset import Dataset, load_dataset
from .evaluation import evaluate
from .export import save_trained
from .settings import TrainSettings
from .trainer import Base, Trainer

CHECKPOINT: Final = "checkpoint.pt"
METRICS: Final = "metrics.jsonl"
_REPORT_EVERY: Final = 20
_log = logging.getLogger("medusa_ext")


@dataclass(frozen=True)
class RunOptions:
    """Where a run reads and writes, and how often. None for `model`: the one in the manifest."""

    data: Path
    out: Path
    model: str | None = None
    max_tokens: int | None = None
    checkpoint_every: int = 500
    evaluate_every: int = 0
    storage: str = "int8"
    plots: bool = True
    progress: bool = False


def train(settings: TrainSettings, options: RunOptions, processes: Processes) -> dict[str, Any]:
    """Trains heads, or continues from the checkpoint in `options.out`; the last evaluation.

    Raises:
        ValueError: the data are empty or belong to another model, or the checkpoint does not fit.
        MemoryError: the data do not fit into memory.
        TrainingError: loss or gradients are not finite.
        OSError: something cannot be read or written, or another run writes to `options.out`.
    """
    if options.plots and processes.first and (text := missing("matplotlib", "no plots: drawing")):
        _log.warning("%s", text)
        options = replace(options, plots=False)
    with only_writer(options.out) if processes.first else contextlib.nullcontext():
        return _train(settings, options, processes)


def _train(settings: TrainSettings, options: RunOptions, processes: Processes) -> dict[str, Any]:
    data = load_dataset(options.data, options.max_tokens)
    source = open_source(resolve_model(options.model or data.manifest.model))
    if source.fingerprint != data.manifest.fingerprint:
        raise ValueError(
            f"{options.data}: needs data of the base {source.path} (fingerprint "
            f"{source.fingerprint}), got data of {data.manifest.model} (fingerprint "
            f"{data.manifest.fingerprint})"
        )
    vocabulary = _vocabulary(settings, data)
    embedding, lm_head = vocabulary_matrices(source)
    trainer = Trainer(settings, data, vocabulary, Base(embedding, lm_head), processes)
    checkpoint = options.out / CHECKPOINT
    if checkpoint.is_file():
        trainer.load(checkpoint)
    metrics = Metrics(options.out / METRICS, trainer, processes.first)
    metrics.start(vocabulary, data)
    _steps(trainer, options, metrics)
    facts: dict[str, Any] = {}
    if processes.first:
        trainer.save(checkpoint)
        facts = evaluate(trainer)
        metrics.write({"evaluation": facts, "step": trainer.step})
        save_trained(trainer, options.out / "heads", source, options.storage)
        if options.plots:
            from .plots import plot_metrics

            plot_metrics(options.out / METRICS)
    processes.wait()
    return facts


def _vocabulary(settings: TrainSettings, data: Dataset) -> DraftVocabulary:
    """Chosen from the training answers alone."""
    rows = torch.from_numpy(data.rows(held_out=False))
    return choose_vocabulary(
        data.tokens[rows].numpy(), data.manifest.vocab_size, settings.vocabulary
    )


def _steps(trainer: Trainer, options: RunOptions, metrics: Metrics) -> None:
    """Runs all steps that are left, with metrics, checkpoints and a progress bar."""
    from tqdm import tqdm

    first = trainer.processes.first
    bar = tqdm(
        total=trainer.total_steps,
        initial=trainer.step,
        unit="step",
        disable=not (options.progress and first),
    )

    def after(facts: dict[str, float]) -> None:
        bar.update()
        metrics.step(facts)
        if not first:
            return
        if options.checkpoint_every and trainer.step % options.checkpoint_every == 0:
            trainer.save(options.out / CHECKPOINT)
        due = options.evaluate_every and trainer.step % options.evaluate_every == 0
        if due and trainer.step < trainer.total_steps:
            metrics.write({"evaluation": evaluate(trainer), "step": trainer.step})

    calls: list[Callable[[dict[str, float]], None]] = [after]
    with bar:
        trainer.run(calls)


class Metrics:
    """The run's metrics.jsonl: a line at its start, every few steps, and for each evaluation."""

    def __init__(self, path: Path, trainer: Trainer, active: bool) -> None:
        self._path, self._trainer, self._active = path, trainer, active
        self._started = time.perf_counter()
        self._first_step = trainer.step

    def start(self, vocabulary: DraftVocabulary, data: Dataset) -> None:
        """What is trained on what; lines of steps that a resumed run repeats are dropped."""
        if not self._active:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        kept = []
        if self._path.is_file() and self._trainer.step:
            for line in self._path.read_text(encoding="utf-8").splitlines():
                try:
                    if json.loads(line).get("step", 0) <= self._trainer.step:
                        kept.append(line + "\n")
                except ValueError:
                    continue  # a line cut by the kill
        self._path.write_text("".join(kept), encoding="utf-8")
        held = torch.from_numpy(data.rows(held_out=True))
        self.write(
            {
                "settings": asdict(self._trainer.settings),
                "model": data.manifest.model,
                "answer_tokens": len(data.tokens),
                "conversations": data.num_conversations,
                "held_out_conversations": int(data.held_out.sum()),
                "draft_vocabulary": vocabulary.size,
                "coverage": vocabulary.coverage,
                "held_out_coverage": vocabulary.coverage_of(data.tokens[held].numpy()),
                "dtype": str(self._trainer.dtype).removeprefix("torch."),
                "steps": self._trainer.total_steps,
                "step": self._trainer.step,
            }
        )

    def step(self, facts: dict[str, float]) -> None:
        """Every few steps: the step's facts and the speed so far."""
        trainer = self._trainer
        if trainer.step % _REPORT_EVERY and trainer.step != trainer.total_steps:
            return
        seconds = time.perf_counter() - self._started
        rows = (trainer.step - self._first_step) * trainer.settings.batch
        speed = {"seconds": round(seconds, 1), "rows_per_second": round(rows / seconds, 1)}
        self.write({"step": trainer.step, **facts, **speed})

    def write(self, facts: dict[str, Any]) -> None:
        """Appends a line."""
        if self._active:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json_text(facts) + "\n")

"""Training: pairs in, gradient steps, validation, and files that let it go on after a kill."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from pddnet.data import Dataset
from pddnet.devices import resolve_device
from pddnet.errors import InputError, TrainingCancelled
from pddnet.interop.files import check_output_folder
from pddnet.learning import registry
from pddnet.learning.cases import fingerprint_of, note_of, sources_of
from pddnet.learning.monitor import Monitor
from pddnet.learning.picture import picture_of
from pddnet.learning.preset_file import write_preset
from pddnet.learning.settings import TrainingConfig
from pddnet.learning.state import STATE, Standing, load_state, save_state
from pddnet.learning.trainable import TrainableRegistration
from pddnet.learning.validation import Score, validate
from pddnet.progress import Progress
from pddnet.strict_json import to_json
from pddnet.trained_weights import TrainedWeights, load_trained, save_trained, state_of

BEST, LAST, SUMMARY = "best.pt", "last.pt", "training.json"
_REPORTS = 200  # of the progress


def train(
    config: TrainingConfig,
    dataset: Dataset,
    cases: Sequence[str],
    folder: Path,
    *,
    device: str = "auto",
    resume: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Path:
    """Train a registration; a folder receives its weights, its state, its history and a summary.

    Args:
        config: what to do; its `dataset`, `cases` and `fold` are not looked at, see `cases.training_cases`.
        dataset: where the scans are.
        cases: names of those that may be used, for training and for validation.
        folder: made if it does not exist. `best.pt` holds the weights with the best validation, `last.pt` those after
            the last iteration; `preset.toml` runs the former under `pddnet register` where a preset can.
        device: "auto", "cpu", "cuda" or "cuda:N".
        resume: go on where an earlier call with the same arguments stopped, with the same numbers as without the stop;
            from the beginning where there was none.
        on_progress: told now and then.
        cancelled: asked between iterations.

    Returns:
        `best.pt`.

    Raises:
        InputError: something cannot be used, the folder holds another training, or the loss is not finite any more.
        TrainingCancelled: `cancelled` said so; the folder's state can be resumed.
    """
    check_output_folder(folder)
    if not resume and (folder / STATE).exists():
        raise InputError(
            f"{folder} holds a training already; resume it, name another folder, or remove it first"
        )
    folder.mkdir(parents=True, exist_ok=True)
    chosen = resolve_device(device)
    devices = [chosen] if chosen.type == "cuda" else []
    with torch.random.fork_rng(devices):  # the caller's random numbers stay as they are
        run = _Run(config, dataset, cases, folder, chosen)
        if resume and (folder / STATE).exists():
            run.resume()
        return run.finish(on_progress, cancelled or _never)


class _Run:
    """One training in one folder."""

    def __init__(
        self,
        config: TrainingConfig,
        dataset: Dataset,
        cases: Sequence[str],
        folder: Path,
        device: torch.device,
    ) -> None:
        self._config, self._folder, self._device = config, folder, device
        torch.manual_seed(config.seed)
        self._model = _initial_model(config).to(device)
        parameters = [p for p in self._model.parameters() if p.requires_grad]
        self._optimiser = torch.optim.Adam(parameters, lr=config.learning_rate)
        self._generator = torch.Generator().manual_seed(config.seed)
        self._standing = Standing()
        self._sources = sources_of(config, dataset, cases, self._model.needs_labels, device)
        self._note = note_of(config, dataset, self._sources)
        self._fingerprint = fingerprint_of(config, dataset, self._sources)

    def resume(self) -> None:
        """Go back to where the folder's state was."""
        self._standing = load_state(
            self._folder, self._fingerprint, self._model, self._optimiser, self._generator
        )

    def finish(self, on_progress: Callable[[Progress], None] | None, cancelled: Callable[[], bool]) -> Path:
        """Run what is left."""
        config, standing = self._config, self._standing
        monitor = Monitor(self._folder, standing.iteration, config.tensorboard)
        began = time.perf_counter() - standing.seconds
        tell_every = max(1, config.iterations // _REPORTS)
        try:
            while standing.iteration < config.iterations and not standing.stopped:
                if cancelled():
                    self._save(began)
                    raise TrainingCancelled(
                        f"cancelled after {standing.iteration} iterations; resume it to go on from there"
                    )
                terms = self._step()
                standing.iteration += 1
                monitor.scalars(standing.iteration, "loss", terms)
                if self._is_time(config.validation.every):
                    self._validate(monitor)
                if self._is_time(config.save_every) or standing.stopped:
                    self._save(began)
                if on_progress is not None and self._is_time(tell_every):
                    on_progress(self._progress(terms))
        finally:
            monitor.close()
        self._save(began)
        save_trained(self._folder / LAST, self._weights())
        write_preset(self._folder, self._model, config.grid, BEST, self._note)
        self._write_summary()
        return self._folder / BEST

    def _is_time(self, every: int) -> bool:
        done = self._standing.iteration
        return done % every == 0 or done == self._config.iterations

    def _step(self) -> dict[str, float]:
        """One step of the optimiser; the terms of the loss, averaged over its pairs, and their sum."""
        config = self._config
        self._model.train()
        for group in self._optimiser.param_groups:
            group["lr"] = config.rate(self._standing.iteration)
        self._optimiser.zero_grad()
        sums: dict[str, float] = {}
        for _ in range(config.pairs_per_step):
            pair = self._sources.training.draw(self._generator)
            mixed = config.precision == "mixed"
            with torch.autocast(self._device.type, torch.bfloat16, enabled=mixed):
                terms = self._model.losses(pair)
            total = torch.stack(list(terms.values())).sum() / config.pairs_per_step
            total.backward()  # type: ignore[no-untyped-call]
            for name, term in {**terms, "total": total * config.pairs_per_step}.items():
                sums[name] = sums.get(name, 0.0) + float(term.detach()) / config.pairs_per_step
        if not math.isfinite(sums["total"]):
            raise InputError(
                f"the loss is {sums['total']} in iteration {self._standing.iteration + 1}; lower learning_rate, or "
                "check the scans' intensities"
            )
        self._optimiser.step()
        return sums

    def _validate(self, monitor: Monitor) -> None:
        standing, sources = self._standing, self._sources
        score = validate(self._model, sources.validation, sources.pairs)
        monitor.scalars(standing.iteration, "validation", score.terms)
        if monitor.shows_pictures:
            pair = sources.validation.pair(*sources.pairs[0])
            displacement = self._model.displacement(pair.fixed_image, pair.moving_image)
            monitor.picture(standing.iteration, "validation pair", picture_of(pair, displacement))
        self._judge(score)

    def _judge(self, score: Score) -> None:
        standing, patience = self._standing, self._config.validation.patience
        if score.value > standing.best:
            standing.best, standing.best_iteration, standing.without_better = (
                score.value,
                standing.iteration,
                0,
            )
            save_trained(self._folder / BEST, self._weights())
            return
        standing.without_better += 1
        if patience and standing.without_better >= patience:
            standing.stopped = f"no better validation {patience} times in a row"

    def _weights(self) -> TrainedWeights:
        return TrainedWeights(
            self._model.name,
            self._model.config(),
            state_of(self._model),
            self._config.licence,
            f"{self._note}; {self._standing.iteration} iterations",
            self._config.grid.as_json(),
        )

    def _save(self, began: float) -> None:
        self._standing.seconds = time.perf_counter() - began
        save_state(
            self._folder, self._fingerprint, self._standing, self._model, self._optimiser, self._generator
        )

    def _progress(self, terms: dict[str, float]) -> Progress:
        standing, total = self._standing, self._config.iterations
        best = "" if math.isinf(standing.best) else f", best validation {standing.best:.4f}"
        message = f"iteration {standing.iteration} of {total}: loss {terms['total']:.5f}{best}"
        return Progress("train", standing.iteration / total, message)

    def _write_summary(self) -> None:
        sources = self._sources
        summary = {
            **vars(self._standing),
            "method": self._model.name,
            "parameters": sum(p.numel() for p in self._model.parameters()),
            "training_cases": list(sources.training.names),
            "validation_cases": list(sources.validation.names) if self._config.validation.cases else [],
            "config": self._config.as_json(),
            "device": str(self._device),
            "torch": torch.__version__,
        }
        text = json.dumps(to_json(summary), indent=2, allow_nan=False)
        (self._folder / SUMMARY).write_text(text + "\n", encoding="utf-8")


def _initial_model(config: TrainingConfig) -> TrainableRegistration:
    model = registry.create(config.method, config.settings)
    if config.start_from:
        weights = load_trained(config.start_from)
        if weights.kind != config.method:
            raise InputError(
                f"{config.start_from} holds weights of '{weights.kind}', and '{config.method}' is trained; name others"
            )
        weights.load_into(model)
    return model


def _never() -> bool:
    return False

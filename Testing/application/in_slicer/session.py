"""Does the steps one after another, each from a timer, so that Slicer works on between them; then ends Slicer."""

from __future__ import annotations

import faulthandler
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import qt
import slicer

from . import steps_registering, steps_results, steps_scene
from .dialogs import Dialogs
from .options import Options
from .report import Report, Skipped
from .surroundings import about, leftIn
from .user import User

_TICK_MS = 20


@dataclass(frozen=True)
class Step:
    """A thing a user does: `work(user)` may be a generator, which lets the application work at each yield."""

    name: str
    work: Callable[[User], Iterator[None] | None]


STEPS = [
    Step("the module opens in under a second", steps_registering.opens),
    Step("what registrations need is installed", steps_registering.hasWhatItNeeds),
    Step("the synthetic sample is loaded with one click", steps_registering.loadsSample),
    Step("scans are chosen in the selectors", steps_registering.choosesInputs),
    Step("Register gives a result and never blocks Slicer", steps_registering.registers),
    Step("the results are named, connected and in one folder", steps_results.outputsAreInOrder),
    Step("the transform leads from the fixed to the moving scan", steps_results.transformLeadsToMoving),
    Step("the segmentation is carried over with the same transform", steps_results.segmentationIsCarried),
    Step("organs overlap more than before", steps_results.organsOverlap),
    Step("every view button shows something and takes it away", steps_results.showsViews),
    Step("the quality table is shown and exported", steps_results.exportsQuality),
    Step("a run is cancelled in the middle and leaves nothing", steps_registering.cancels),
    Step("the scene is saved, cleared and read again", steps_scene.savesAndReads),
    Step("the scene is closed during a run", steps_scene.closesSceneDuringRun),
    Step("Slicer's own sample scans are registered", steps_scene.registersBrainTumor),
]


class Session:
    """One run through all steps.

    Args:
        options: the choices of the person who started the script.

    Raises:
        OSError: the folder cannot be written to.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        temporary = options.folder / "temporary"
        temporary.mkdir(parents=True, exist_ok=True)
        tempfile.tempdir = str(temporary)  # so that what a registration leaves can be told from anything else
        for old in options.folder.glob("failed-*.png"):
            old.unlink()
        self._temporary, self._hangFile = temporary, options.folder / "hang.txt"
        self._hang = self._hangFile.open("w", encoding="utf-8")
        self._user = User(options, Dialogs(options.install), temporary)
        self._report = Report(options.folder, about(), len(STEPS))
        self._ahead = list(STEPS)
        self._current: tuple[Iterator[None], float] | None = None
        self._timer = qt.QTimer()
        self._timer.setInterval(_TICK_MS)
        self._timer.connect("timeout()", self._tick)

    def start(self) -> None:
        """Begin; returns at once, the application's event loop does the rest."""
        self._watch()
        self._timer.start()

    def _tick(self) -> None:
        try:
            if self._current is None:
                self._begin()
            if self._current is not None:
                self._goOn(*self._current)
        except Exception:  # of this script itself
            traceback.print_exc()
            self._end(1)

    def _begin(self) -> None:
        if not self._ahead:
            self._end(self._report.exitCode)
            return
        step = self._ahead.pop(0)
        self._watch()
        self._user.record = self._report.begin(step.name)
        self._current = _asGenerator(step.work, self._user), time.monotonic()

    def _goOn(self, work: Iterator[None], began: float) -> None:
        record = self._user.record
        record.seconds = round(time.monotonic() - began, 2)
        try:
            next(work)
            return
        except StopIteration:
            errors = self._user.dialogs.takeErrors()
            record.passed = not errors
            record.message = "\n".join([*record.notes, *errors])
        except Skipped as reason:
            record.skipped, record.message = True, str(reason)
        except Exception as error:
            record.message, record.details = str(error) or type(error).__name__, traceback.format_exc()
        self._finish()

    def _finish(self) -> None:
        record, self._current = self._user.record, None
        if not record.passed:
            self._clean(record)
        self._report.save()
        print(f"{record.verdict:8}{record.seconds:7.1f} s  {record.name}  {record.message}", flush=True)

    def _clean(self, record: Any) -> None:
        """A picture of what the user saw, and a panel that the next step can use."""
        try:
            if not record.skipped:
                self._user.photograph(f"failed-{len(self._report.steps):02d}", panelToo=True)
            self._user.tidy()
        except Exception:
            record.details += traceback.format_exc()

    def _watch(self) -> None:
        """End the application where a step keeps it from doing anything at all; needs no interpreter for it."""
        faulthandler.dump_traceback_later(self._options.patience, exit=True, file=self._hang)

    def _end(self, code: int) -> None:
        self._timer.stop()
        self._user.dialogs.stop()
        faulthandler.cancel_dump_traceback_later()
        self._hang.close()
        self._hangFile.unlink()
        if not leftIn(self._temporary):
            self._temporary.rmdir()
        self._report.save()
        print(self._report.text(), flush=True)
        slicer.util.exit(code)


def _asGenerator(work: Callable[[User], Iterator[None] | None], user: User) -> Iterator[None]:
    yield  # the report says which step has begun before it can hang
    steps = work(user)
    if steps is not None:
        yield from steps

"""`RegistrationLogic`: registration, its samples and its surroundings for scripts and for the panel. No Qt."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from pddnet import job, job_events
from pddnet.errors import RegistrationCancelled

from . import checks, mrml_conversion
from .output_nodes import addSyntheticPair
from .registration_run import MakeRun, Steps, registrationSteps, workerSteps
from .runner import WorkerRun
from .settings import RegistrationError, RegistrationInputs, RegistrationOutputs, RegistrationSettings
from .task import Callbacks, Task, TaskProgress
from .warm_worker import WarmWorker

_INPUTS = {field.name for field in fields(RegistrationInputs)}
_SETTINGS = {field.name for field in fields(RegistrationSettings)}
_PAUSE_S = 0.01


class RegistrationLogic:
    """Registers volumes of a scene in a process of its own.

    Args:
        scene: the MRML scene results are added to.
        eventLoop: an object with `later(milliseconds, callable)` and `process()`; asynchronous tasks poll themselves
            through it, and a blocking call keeps the application responsive. Without one, asynchronous tasks are
            polled by the caller.
        makeRun: makes the `WorkerRun` for some settings and, as `warm`, a waiting worker; for tests.
    """

    def __init__(
        self,
        scene: Any,
        eventLoop: Any = None,
        makeRun: MakeRun = WorkerRun.forSettings,
    ) -> None:
        self._scene = scene
        self._eventLoop = eventLoop
        self._makeRun = makeRun

    def register(
        self,
        fixed: Any,
        moving: Any,
        segmentations: Sequence[Any] = (),
        *,
        outputs: RegistrationOutputs | None = None,
        blocking: bool = True,
        warm: WarmWorker | None = None,
        onProgress: Callable[[TaskProgress], None] | None = None,
        onFinished: Callable[[RegistrationOutputs], None] | None = None,
        onFailed: Callable[[Exception], None] | None = None,
        onCancelled: Callable[[], None] | None = None,
        **inputsAndSettings: Any,
    ) -> RegistrationOutputs | Task:
        """Find the transform from the fixed to the moving volume and add it and what follows from it to the scene.

        Args:
            fixed, moving: scalar volume nodes; parent transforms are honoured, the nodes are not changed.
            segmentations: segmentation or label-map nodes of the moving volume, to be brought onto the fixed one.
            outputs: nodes to update; a new node is made for each that is None.
            blocking: wait and return the outputs; else return the task at once.
            warm: may hold a worker that waits already, which saves a second; the panel has one.
            onProgress, onFinished, onFailed, onCancelled: called on the main thread.
            inputsAndSettings: the other fields of `RegistrationInputs` (fixedSegmentation, fixedLandmarks,
                movingLandmarks, fixedMask, movingMask, initialTransform) and of `RegistrationSettings` (preset,
                device, globalStage, levels, smoothness, instanceIterations, weights, inverse, python, keepFolder).

        Returns:
            The outputs, all in the scene: the transform node takes world points of the fixed volume to world points
            of the moving one (`GetTransformFromParent`); images lie on the fixed volume's grid.

        Raises:
            RegistrationError: the inputs cannot be used, or a blocking registration failed; the scene is as it was.
            RegistrationCancelled: a blocking registration was cancelled by a callback.
            TypeError: an unknown keyword.
        """
        inputs, settings = _split(fixed, moving, segmentations, inputsAndSettings)
        wanted = outputs or RegistrationOutputs()
        problem = self.problem(inputs, settings, wanted)
        if problem:
            raise RegistrationError("input", problem)
        callbacks = Callbacks(onProgress, onFinished, onFailed, onCancelled)

        def work(task: Task) -> Steps:
            return registrationSteps(task, self._scene, self._runMaker(warm), inputs, settings, wanted)

        return self._started(work, callbacks, blocking)

    def problem(
        self,
        inputs: RegistrationInputs,
        settings: RegistrationSettings,
        outputs: RegistrationOutputs | None = None,
    ) -> str:
        """Why these inputs cannot be registered, or not into these outputs, and what to do about it; "" if they can."""
        return checks.problemWith(inputs, settings, outputs)

    def estimate(self, inputs: RegistrationInputs, settings: RegistrationSettings) -> float:
        """Estimated peak memory of the registration process in MB, at once.

        Raises:
            InputError: the volumes or the settings cannot be used.
        """
        return checks.neededMemoryMb(inputs, settings)

    def describe(
        self, settings: RegistrationSettings | None = None, *, blocking: bool = True, **callbacks: Any
    ) -> dict[str, Any] | Task:
        """Versions and devices of the Python environment that registers: {"versions": ..., "devices": ...}."""

        def then(_folder: Path, answer: job_events.Succeeded) -> Steps:
            yield from ()  # nothing to read
            return dict(answer.report)

        return self._asked(job.DescribeRequest(), then, settings, blocking, callbacks)

    def addSyntheticPair(
        self,
        request: job.SyntheticRequest | None = None,
        settings: RegistrationSettings | None = None,
        *,
        blocking: bool = True,
        warm: WarmWorker | None = None,
        **callbacks: Any,
    ) -> dict[str, Any] | Task:
        """Add two made-up abdominal CT scans with their organs.

        Returns:
            {"fixed": volume, "moving": volume, "fixedSegmentation": ..., "movingSegmentation": ...}, or the task.
        """

        def then(folder: Path, answer: job_events.Succeeded) -> Steps:
            nodes = yield from mrml_conversion.makeSyntheticPair(job.synthetic_files(answer), folder)
            return addSyntheticPair(self._scene, nodes)

        return self._asked(request or job.SyntheticRequest(), then, settings, blocking, callbacks, warm)

    def _asked(
        self,
        request: job.Request,
        then: Callable[..., Steps],
        settings: RegistrationSettings | None,
        blocking: bool,
        callbacks: dict[str, Any],
        warm: WarmWorker | None = None,
    ) -> Any:
        def work(task: Task) -> Steps:
            return workerSteps(task, self._runMaker(warm), settings or RegistrationSettings(), request, then)

        return self._started(work, Callbacks(**callbacks), blocking)

    def _runMaker(self, warm: WarmWorker | None) -> MakeRun:
        return self._makeRun if warm is None else partial(self._makeRun, warm=warm)

    def _started(self, work: Callable[[Task], Steps], callbacks: Callbacks, blocking: bool) -> Any:
        if not blocking:
            return Task(work, callbacks, self._eventLoop)
        task = Task(work, callbacks)
        try:
            while not task.poll():
                if self._eventLoop is not None:
                    self._eventLoop.process()
                time.sleep(_PAUSE_S)
        finally:
            task.cancel()  # where the loop was left by an exception, such as Ctrl+C
        if task.state == "cancelled":
            raise RegistrationCancelled("the registration was cancelled; nothing was changed")
        if task.error is not None:
            raise task.error
        return task.outputs


def _split(
    fixed: Any, moving: Any, segmentations: Sequence[Any], others: dict[str, Any]
) -> tuple[RegistrationInputs, RegistrationSettings]:
    if hasattr(segmentations, "IsA"):
        raise TypeError("segmentations is a node; give a list of nodes")
    unknown = set(others) - _INPUTS - _SETTINGS
    if unknown:
        known = ", ".join(sorted((_INPUTS | _SETTINGS) - {"fixed", "moving", "segmentations"}))
        raise TypeError(f"register() does not know {', '.join(sorted(unknown))}; it takes {known}")
    inputs = {name: value for name, value in others.items() if name in _INPUTS}
    settings = {name: value for name, value in others.items() if name in _SETTINGS}
    return (
        RegistrationInputs(fixed=fixed, moving=moving, segmentations=tuple(segmentations or ()), **inputs),
        RegistrationSettings(**settings),
    )

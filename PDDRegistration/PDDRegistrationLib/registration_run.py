"""One run of the worker as a generator of small steps: nodes to files, the process, files to nodes, nodes to the scene.

Each generator here is driven by a `Task`; closing it at any point ends the process and removes the files.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from pddnet import job, job_events
from pddnet.errors import InputError

from . import mrml_conversion, quality
from .other_python import checkOtherPython
from .output_nodes import MadeNodes, commit
from .runner import WorkerRun
from .settings import RegistrationError, RegistrationInputs, RegistrationOutputs, RegistrationSettings
from .task import WAITING, Task

Steps = Generator[Any, None, Any]
MakeRun = Callable[[RegistrationSettings], WorkerRun]
_EXPORTED, _COMPUTED = 0.05, 0.95  # shares of the progress bar


def registrationSteps(
    task: Task,
    scene: Any,
    makeRun: MakeRun,
    inputs: RegistrationInputs,
    settings: RegistrationSettings,
    wanted: RegistrationOutputs,
) -> Steps:
    """Register; returns the `RegistrationOutputs`, already in the scene."""
    run = makeRun(settings)  # here: a generator that is closed before its first step makes nothing
    try:
        if settings.python:
            task.tell("check", 0.0, _("Looking at the Python environment"))
            yield from checkOtherPython(settings.python, slicer.util.startupEnvironment)
        task.tell("export", 0.0, _("Reading the volumes"))
        request = yield from _exported(run.folder, inputs, settings)
        answer = yield from _answered(task, run, request)
        task.tell("import", _COMPUTED, _("Making the results' nodes"))
        made = yield from _made(run.folder, answer, inputs, request)
        _checkStillThere(scene, inputs)
        _tellMoved(task, inputs, request)
        if settings.keepFolder:
            yield from _kept(task, run.folder, Path(settings.keepFolder))
        yield WAITING  # the event loop has its turn before all nodes enter the scene in one step
        return commit(scene, made, inputs, settings, wanted, dict(answer.report))
    except InputError as error:
        raise RegistrationError("input", str(error)) from error
    except OSError as error:
        text = _(
            "Files could not be exchanged in {folder} ({error}); free some space there and register again."
        )
        raise RegistrationError("files", text.format(folder=run.folder.parent, error=error)) from error
    finally:
        run.close()


def workerSteps(
    task: Task,
    makeRun: MakeRun,
    settings: RegistrationSettings,
    request: job.Request,
    then: Callable[..., Steps],
) -> Steps:
    """Send any other request; `then(folder, answer)` makes of the answer what is returned."""
    run = makeRun(settings)
    try:
        answer = yield from _answered(task, run, request)
        return (yield from then(run.folder, answer))
    finally:
        run.close()


def _exported(folder: Path, inputs: RegistrationInputs, settings: RegistrationSettings) -> Steps:
    fixed = yield from mrml_conversion.exportVolume(inputs.fixed, folder, "fixed")
    moving = yield from mrml_conversion.exportVolume(inputs.moving, folder, "moving")
    parents = yield from mrml_conversion.exportParents(inputs.fixed, inputs.moving, folder)
    masks = []
    for node, name in ((inputs.fixedMask, "fixed_mask"), (inputs.movingMask, "moving_mask")):
        scan = inputs.fixed if name == "fixed_mask" else inputs.moving
        masks.append((yield from mrml_conversion.exportMask(node, folder, name, scan)) if node else None)
    initial = None
    if inputs.initialTransform is not None:
        initial = yield from mrml_conversion.exportTransform(
            inputs.initialTransform, inputs.fixed, folder, "initial"
        )
    segmentations = []
    for number, node in enumerate(inputs.segmentations):
        segmentations.append(
            (yield from mrml_conversion.exportSegmentation(node, folder, f"segmentation{number}"))
        )
    judged = None
    if inputs.fixedSegmentation is not None:
        judged = yield from mrml_conversion.exportSegmentation(
            inputs.fixedSegmentation, folder, "fixed_segmentation"
        )
    return job.RegisterRequest(
        fixed=fixed,
        moving=moving,
        fixed_mask=masks[0],
        moving_mask=masks[1],
        parents=parents,
        initial_transform=initial,
        segmentations=tuple(segmentations),
        fixed_segmentation=judged,
        landmarks=_landmarks(inputs),
        options=_options(settings),
    )


def _landmarks(inputs: RegistrationInputs) -> job.Landmarks | None:
    if inputs.fixedLandmarks is None or inputs.movingLandmarks is None:
        return None
    points = [
        tuple(map(tuple, mrml_conversion.landmarkPoints(node).tolist()))
        for node in (inputs.fixedLandmarks, inputs.movingLandmarks)
    ]
    return job.Landmarks(points[0], points[1])


def _options(settings: RegistrationSettings) -> job.Options:
    return job.Options(
        preset=_absolute(settings.preset),
        device=settings.device,
        weights=_absolute(settings.weights) or None,
        global_stage=settings.globalStage,
        levels=settings.levels,
        smoothness=settings.smoothness,
        instance_iterations=settings.instanceIterations,
        inverse=settings.inverse,
    )


def _absolute(name: str | None) -> str:
    """The name of something built in, or the path of a file, which the worker would look for in another folder."""
    return str(Path(name).resolve()) if name and Path(name).is_file() else name or ""


def _answered(task: Task, run: WorkerRun, request: job.Request) -> Steps:
    """Start the worker and wait for its last word."""
    job.write_request(run.folder, request)
    task.tell("start", _EXPORTED, _("Starting the registration process"))
    run.start()
    while True:
        for event in run.poll():
            if isinstance(event, job_events.Progressed):
                fraction = _EXPORTED + (_COMPUTED - _EXPORTED) * event.fraction
                task.tell(event.stage, fraction, event.message)
            elif isinstance(event, job_events.Logged):
                task.log(event.level, event.message)
            elif isinstance(event, job_events.Succeeded):
                return event
            elif isinstance(event, job_events.Failed):
                raise RegistrationError(event.code, event.message, event.details)
        yield WAITING


def _made(
    folder: Path, answer: job_events.Succeeded, inputs: RegistrationInputs, request: job.RegisterRequest
) -> Steps:
    files = job.register_files(answer)
    transform = yield from mrml_conversion.makeGridTransform(files.displacement, folder)
    inverse = None
    if files.inverse is not None:
        inverse = yield from mrml_conversion.makeGridTransform(files.inverse, folder)
    images = []
    for image in (files.warped, files.jacobian, files.uncertainty):
        images.append((yield from mrml_conversion.makeVolume(image, folder, inputs.fixed)))
    segmentations = []
    for warped, source, sent in zip(
        files.segmentations, inputs.segmentations, request.segmentations, strict=True
    ):
        segmentations.append(
            (yield from mrml_conversion.makeSegmentation(warped, folder, source, inputs.fixed, sent))
        )
    return MadeNodes(
        transform=transform,
        inverseTransform=inverse,
        warpedVolume=images[0],
        jacobian=images[1],
        uncertainty=images[2],
        warpedSegmentations=segmentations,
        qualityTable=quality.makeQualityTable(answer.report),
    )


def _checkStillThere(scene: Any, inputs: RegistrationInputs) -> None:
    for node in (inputs.fixed, inputs.moving, *inputs.segmentations):
        if not scene.IsNodePresent(node):
            raise RegistrationError(
                "input",
                _(
                    "{name} was removed from the scene during the registration, so that the results have nothing to "
                    "belong to. Nothing was added; keep the input nodes until it is finished."
                ).format(name=node.GetName()),
            )


def _tellMoved(task: Task, inputs: RegistrationInputs, request: job.RegisterRequest) -> None:
    """The result is right for where the scans were, but nobody would see it from the scene."""
    for node, sent in ((inputs.fixed, request.fixed), (inputs.moving, request.moving)):
        if not mrml_conversion.geometryOfVolume(node).is_close(sent.geometry):
            message = _("{name} was moved during the registration; the results are for its former place.")
            task.log("warning", message.format(name=node.GetName()))


def _kept(task: Task, folder: Path, target: Path) -> Iterator[None]:
    """Copy the run's files to where the user wants them, in a folder of their own."""
    try:
        place = target / folder.name
        place.mkdir(parents=True)
        for path in sorted(folder.rglob("*")):
            copy = place / path.relative_to(folder)
            if path.is_dir():
                copy.mkdir(exist_ok=True)
            else:
                yield from _copied(path, copy)
    except OSError as error:  # the results are not lost for it
        message = _(
            "The run's files could not be kept in {folder} ({error}); choose another folder under Advanced."
        )
        task.log("warning", message.format(folder=target, error=error))


def _copied(path: Path, copy: Path) -> Iterator[None]:
    with path.open("rb") as source, copy.open("wb") as sink:
        while chunk := source.read(1 << 23):
            sink.write(chunk)
            yield

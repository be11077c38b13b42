"""Whether a registration makes sense before it is started, and what it will need; instant, without PyTorch."""

from __future__ import annotations

from typing import Any

from slicer.i18n import tr as _

from pddnet.config import load_preset, overridden
from pddnet.errors import InputError
from pddnet.estimate import estimate_peak_memory_mb
from pddnet.memory import available_memory_mb

from . import mrml_conversion
from .node_checks import inputKindProblem, outputProblem, parentsOf
from .settings import RegistrationInputs, RegistrationOutputs, RegistrationSettings

_THINNEST = 2  # voxels along each axis


def problemWith(
    inputs: RegistrationInputs, settings: RegistrationSettings, outputs: RegistrationOutputs | None = None
) -> str:
    """The first reason why these inputs cannot be registered into these outputs, with what to do, or ""."""
    return (
        inputKindProblem(inputs)
        or _volumeProblem(inputs.fixed, _("fixed"))
        or _volumeProblem(inputs.moving, _("moving"))
        or _togetherProblem(inputs)
        or outputProblem(outputs or RegistrationOutputs(), inputs, settings)
        or _settingsProblem(settings)
        or _memoryProblem(inputs, settings)
    )


def neededMemoryMb(inputs: RegistrationInputs, settings: RegistrationSettings) -> float:
    """Estimated peak memory of the registration process, MB.

    Raises:
        InputError: the volumes or the settings cannot be used.
    """
    fixed, moving = (mrml_conversion.geometryOfVolume(node) for node in (inputs.fixed, inputs.moving))
    return estimate_peak_memory_mb(fixed, moving, load_preset(settings.preset), levels=settings.levels)


def _volumeProblem(node: Any, role: str) -> str:
    if node is None:
        return _("Choose the {role} volume.").format(role=role)
    image = node.GetImageData()
    if image is None or min(image.GetDimensions()) < 1:
        return _("The {role} volume {name} is empty; load its image or choose another.").format(
            role=role, name=node.GetName()
        )
    if image.GetNumberOfScalarComponents() != 1:
        return _(
            "The {role} volume {name} has {count} values per voxel and one is needed; choose a scalar volume."
        ).format(role=role, name=node.GetName(), count=image.GetNumberOfScalarComponents())
    if min(image.GetDimensions()) < _THINNEST:
        return _(
            "The {role} volume {name} has {size} voxels; a 3-D volume with 2 or more along each axis is needed."
        ).format(role=role, name=node.GetName(), size=" x ".join(map(str, image.GetDimensions())))
    return ""


def _togetherProblem(inputs: RegistrationInputs) -> str:
    if inputs.fixed is inputs.moving:
        return _("The fixed and the moving volume are the same; choose two.")
    for node in inputs.segmentations:
        if _isEmpty(node):
            return _("The segmentation {name} is empty; uncheck it or add segments.").format(
                name=node.GetName()
            )
    if inputs.initialTransform is not None and inputs.initialTransform in parentsOf(inputs.moving):
        return _(
            "The moving volume {name} is under the initial transform {transform} already, which would count twice; "
            "choose no initial transform under Advanced."
        ).format(name=inputs.moving.GetName(), transform=inputs.initialTransform.GetName())
    return _landmarkProblem(inputs.fixedLandmarks, inputs.movingLandmarks)


def _isEmpty(node: Any) -> bool:
    if node.IsA("vtkMRMLSegmentationNode"):
        return node.GetSegmentation().GetNumberOfSegments() == 0
    return node.GetImageData() is None


def _landmarkProblem(fixed: Any, moving: Any) -> str:
    if fixed is None and moving is None:
        return ""
    if fixed is None or moving is None:
        return _("Landmarks need two point lists; choose the other one under Quality, or none.")
    for node in (fixed, moving):
        if node.GetNumberOfDefinedControlPoints() < node.GetNumberOfControlPoints():
            return _(
                "The landmark list {name} has points without a position, so that pairs cannot be told; place or "
                "delete them."
            ).format(name=node.GetName())
    counts = [node.GetNumberOfControlPoints() for node in (fixed, moving)]
    if counts[0] != counts[1] or not counts[0]:
        return _(
            "The landmark lists {fixed} and {moving} have {first} and {second} points; equally many are needed, one "
            "or more, in the same order."
        ).format(fixed=fixed.GetName(), moving=moving.GetName(), first=counts[0], second=counts[1])
    return ""


def _settingsProblem(settings: RegistrationSettings) -> str:
    for name, kind in (("levels", int), ("instanceIterations", int), ("smoothness", (int, float))):
        value = getattr(settings, name)
        if value is not None and not isinstance(value, kind):
            return _("{name} is {value}; a {kind}number is needed.").format(
                name=name, value=repr(value), kind=_("whole ") if kind is int else ""
            )
    try:
        preset = overridden(
            load_preset(settings.preset),
            levels=settings.levels,
            smoothness=settings.smoothness,
            instance_iterations=settings.instanceIterations,
        )
    except InputError as error:
        return str(error)
    if settings.weights and not preset.cube_levels:
        return _(
            "The preset {name} has no network that could use weights; choose the built-in ones under Advanced, or the "
            "preset pdd-net-2019."
        ).format(name=preset.name)
    return ""


def _memoryProblem(inputs: RegistrationInputs, settings: RegistrationSettings) -> str:
    try:
        needed = neededMemoryMb(inputs, settings)
    except InputError as error:
        return str(error)
    free = available_memory_mb()
    if settings.device in ("auto", "cpu") and needed > free:
        return _(
            "This registration needs about {needed:.1f} GB of memory and {free:.1f} GB are free; close other "
            "programs, crop the volumes, or choose the preset fast."
        ).format(needed=needed / 1000, free=free / 1000)
    return ""

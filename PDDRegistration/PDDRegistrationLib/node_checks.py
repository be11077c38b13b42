"""Whether the nodes given are what is needed, and whether results may go into the nodes chosen for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from slicer.i18n import tr as _

from .output_nodes import targetsOf
from .settings import RegistrationInputs, RegistrationOutputs, RegistrationSettings

_VOLUME, _LABELS, _SEGMENTATION = (
    "vtkMRMLScalarVolumeNode",
    "vtkMRMLLabelMapVolumeNode",
    "vtkMRMLSegmentationNode",
)
_TRANSFORM, _POINTS, _TABLE = "vtkMRMLTransformNode", "vtkMRMLMarkupsNode", "vtkMRMLTableNode"


def inputKindProblem(inputs: RegistrationInputs) -> str:
    """Which input is no node of a kind that can be used there, or ""."""
    for node, role, kinds in _inputs(inputs):
        if not _isOneOf(node, kinds):
            return _("The {role} is {what}; {kinds} in the scene is needed.").format(
                role=role, what=_described(node), kinds=_(" or ").join(kinds)
            )
    return ""


def outputProblem(
    outputs: RegistrationOutputs, inputs: RegistrationInputs, settings: RegistrationSettings
) -> str:
    """Why results may not go into the nodes chosen for them, or "".

    Inputs are never changed, be it directly or by what they are under; and one node holds one result.
    """
    read = {id(node): node for node, _role, _kinds in _inputs(inputs)}
    above = {id(parent): node for node in read.values() for parent in parentsOf(node)}
    taken: set[int] = set()
    for target, kind in _targets(outputs, inputs, settings):
        if not _isOneOf(target, (kind,)) or (kind == _VOLUME and target.GetClassName() != _VOLUME):
            return _("The chosen output is {what}; {kind} is needed: choose another, or none.").format(
                what=_described(target), kind=kind
            )
        names = {"name": target.GetName()}
        if id(target) in read:
            text = _("{name} is an input and chosen for an output; choose another output, or none.")
        elif id(target) in above:
            text = _(
                "{input} is under the transform {name}, which the result would change; choose another output, or none, "
                "or take {input} out from under it."
            )
            names["input"] = above[id(target)].GetName()
        elif id(target) in taken:
            text = _("{name} is chosen for two outputs; choose another for one of them, or none.")
        elif kind == _TRANSFORM and target.GetParentTransformNode() is not None:
            text = _(
                "The output transform {name} is under another transform, so that it would not lead from the world to "
                "the world; take it out, or choose another output, or none."
            )
        else:
            taken.add(id(target))
            continue
        return text.format(**names)
    return ""


def _inputs(inputs: RegistrationInputs) -> Iterator[tuple[Any, str, tuple[str, ...]]]:
    """The nodes given, what they are for, and the classes that will do."""
    voxels = (_SEGMENTATION, _VOLUME)
    given = [
        (inputs.fixed, _("fixed volume"), (_VOLUME,)),
        (inputs.moving, _("moving volume"), (_VOLUME,)),
        (inputs.fixedSegmentation, _("fixed segmentation"), voxels),
        (inputs.fixedLandmarks, _("fixed landmarks"), (_POINTS,)),
        (inputs.movingLandmarks, _("moving landmarks"), (_POINTS,)),
        (inputs.fixedMask, _("fixed mask"), voxels),
        (inputs.movingMask, _("moving mask"), voxels),
        (inputs.initialTransform, _("initial transform"), (_TRANSFORM,)),
    ]
    yield from (entry for entry in given if entry[0] is not None)
    yield from ((node, _("segmentation to transfer"), voxels) for node in inputs.segmentations)


def _targets(
    outputs: RegistrationOutputs, inputs: RegistrationInputs, settings: RegistrationSettings
) -> list[tuple[Any, str]]:
    """The nodes that will be updated, and the class of each."""
    segmentations = zip(
        targetsOf(outputs.warpedSegmentations, len(inputs.segmentations)), inputs.segmentations, strict=True
    )
    targets = [
        (outputs.transform, _TRANSFORM),
        (outputs.inverseTransform if settings.inverse else None, _TRANSFORM),
        (outputs.warpedVolume, _VOLUME),
        (outputs.jacobian, _VOLUME),
        (outputs.uncertainty, _VOLUME),
        (outputs.qualityTable, _TABLE),
        *((node, _SEGMENTATION if source.IsA(_SEGMENTATION) else _LABELS) for node, source in segmentations),
    ]
    return [(node, kind) for node, kind in targets if node is not None]


def _isOneOf(node: Any, kinds: tuple[str, ...]) -> bool:
    return hasattr(node, "IsA") and any(map(node.IsA, kinds)) and node.GetScene() is not None


def _described(node: Any) -> str:
    if not hasattr(node, "GetScene"):
        return repr(node)
    text = _("{name}, a {kind}") if node.GetScene() else _("{name}, a {kind} that is in no scene")
    return text.format(name=node.GetName(), kind=node.GetClassName())


def parentsOf(node: Any) -> Iterator[Any]:
    """The transform nodes a node is under, the nearest first."""
    parent = node.GetParentTransformNode()
    while parent is not None:
        yield parent
        parent = parent.GetParentTransformNode()

"""From the nodes of a finished registration to nodes of the scene: at once, named, in one folder, with provenance."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any

import slicer
from slicer.i18n import tr as _

from . import mrml_conversion
from .auxiliary import removeNode
from .settings import RegistrationInputs, RegistrationOutputs, RegistrationSettings

PROVENANCE = "PDDRegistration.provenance"  # attribute of the transform node: JSON
TRANSFORM_ROLE = "PDDRegistration.transform"  # reference of each other output to the transform it came from
_ABDOMEN = (400.0, 40.0)  # window and level in HU


@dataclass
class MadeNodes:
    """Nodes that are in no scene yet."""

    transform: Any
    warpedVolume: Any
    jacobian: Any
    uncertainty: Any
    qualityTable: Any
    warpedSegmentations: list[Any] = field(default_factory=list)
    inverseTransform: Any = None


def commit(
    scene: Any,
    made: MadeNodes,
    inputs: RegistrationInputs,
    settings: RegistrationSettings,
    wanted: RegistrationOutputs,
    report: dict[str, Any],
) -> RegistrationOutputs:
    """Put the nodes into the scene, or into the nodes chosen for them that are still there, as one change."""
    _nameAfter(made, inputs)
    wanted = _stillThere(scene, wanted)
    if scene.GetUndoFlag():
        scene.SaveStateForUndo()
    added: list[Any] = []
    try:
        done = _placeAll(scene, made, wanted, added)
        done.report = report
        _putUnderParentOf(inputs.fixed, done)
        _tellProvenance(done, inputs, settings, report)
        _display(scene, done, inputs, added)
        _storeSmall(done)
        done.folderItem = _folder(scene, done, wanted, inputs)
    except Exception:
        for node in reversed(added):
            if scene.IsNodePresent(node):
                removeNode(scene, node)
        raise
    return done


def _stillThere(scene: Any, wanted: RegistrationOutputs) -> RegistrationOutputs:
    """The chosen nodes without those that were removed from the scene meanwhile: new ones are made for these."""

    def present(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [present(node) for node in value]
        return value if value is not None and scene.IsNodePresent(value) else None

    names = [name for name in vars(wanted) if name not in ("folderItem", "report")]
    return RegistrationOutputs(**{name: present(getattr(wanted, name)) for name in names})


def _placeAll(
    scene: Any, made: MadeNodes, wanted: RegistrationOutputs, added: list[Any]
) -> RegistrationOutputs:
    def placed(node: Any, target: Any) -> Any:
        if target is not None:
            mrml_conversion.updateNode(target, node)
            return target
        node.SetName(scene.GenerateUniqueName(node.GetName()))
        added.append(_added(scene, node))
        return added[-1]

    targets = targetsOf(wanted.warpedSegmentations, len(made.warpedSegmentations))
    return RegistrationOutputs(
        transform=placed(made.transform, wanted.transform),
        warpedVolume=placed(made.warpedVolume, wanted.warpedVolume),
        warpedSegmentations=[
            placed(node, target) for node, target in zip(made.warpedSegmentations, targets, strict=True)
        ],
        jacobian=placed(made.jacobian, wanted.jacobian),
        uncertainty=placed(made.uncertainty, wanted.uncertainty),
        inverseTransform=placed(made.inverseTransform, wanted.inverseTransform)
        if made.inverseTransform
        else None,
        qualityTable=placed(made.qualityTable, wanted.qualityTable or _tableOf(scene, wanted.transform)),
    )


def _added(scene: Any, node: Any) -> Any:
    """The node in the scene, part of undo where the nodes of its class are, as those that the scene makes itself."""
    usual = scene.GetDefaultNodeByClass(node.GetClassName())
    if usual is not None:
        node.SetUndoEnabled(usual.GetUndoEnabled())
    return scene.AddNode(node)


def _tableOf(scene: Any, transform: Any) -> Any:
    """The quality table of an earlier run that updated the same transform: it would describe what is gone."""
    tables = [
        scene.GetNthNodeByClass(number, "vtkMRMLTableNode")
        for number in range(scene.GetNumberOfNodesByClass("vtkMRMLTableNode"))
    ]
    return next(
        (node for node in tables if transform and node.GetNodeReference(TRANSFORM_ROLE) is transform), None
    )


def addSyntheticPair(scene: Any, made: dict[str, Any]) -> dict[str, Any]:
    """Put two made-up scans and their organs into the scene, named, and shown as abdominal CT is.

    Args:
        made: "fixed", "moving", "fixedSegmentation", "movingSegmentation": nodes in no scene.
    """
    names = {
        "fixed": _("Synthetic A"),
        "moving": _("Synthetic B"),
        "fixedSegmentation": _("Synthetic A organs"),
        "movingSegmentation": _("Synthetic B organs"),
    }
    added = {}
    for role, node in made.items():
        node.SetName(scene.GenerateUniqueName(names[role]))
        added[role] = scene.AddNode(node)
    for role in ("fixed", "moving"):
        display = scene.AddNode(_volumeDisplay(*_ABDOMEN, None))
        added[role].SetAndObserveDisplayNodeID(display.GetID())
    for role in ("fixedSegmentation", "movingSegmentation"):
        added[role].CreateDefaultDisplayNodes()
    return added


def targetsOf(chosen: list[Any] | None, count: int) -> list[Any]:
    """The existing nodes chosen for several results, None where a new one is wanted."""
    given = list(chosen or [])[:count]
    return given + [None] * (count - len(given))


def restoreTransforms(scene: Any) -> None:
    """After a scene was loaded: Slicer reads grid transforms as cubic, and those of a registration are linear."""
    for number in range(scene.GetNumberOfNodesByClass("vtkMRMLTransformNode")):
        node = scene.GetNthNodeByClass(number, "vtkMRMLTransformNode")
        if node.GetAttribute(PROVENANCE):
            mrml_conversion.interpolateLinearly(node)


def allNodes(outputs: RegistrationOutputs) -> list[Any]:
    """The output nodes there are."""
    nodes = [
        outputs.transform,
        outputs.inverseTransform,
        outputs.warpedVolume,
        *outputs.warpedSegmentations,
        outputs.jacobian,
        outputs.uncertainty,
        outputs.qualityTable,
    ]
    return [node for node in nodes if node is not None]


def _nameAfter(made: MadeNodes, inputs: RegistrationInputs) -> None:
    fixed, moving = inputs.fixed.GetName(), inputs.moving.GetName()
    made.transform.SetName(_("{moving} to {fixed}").format(moving=moving, fixed=fixed))
    made.warpedVolume.SetName(_("{moving} warped to {fixed}").format(moving=moving, fixed=fixed))
    made.jacobian.SetName(_("{moving} to {fixed} Jacobian").format(moving=moving, fixed=fixed))
    made.uncertainty.SetName(_("{moving} to {fixed} uncertainty (mm)").format(moving=moving, fixed=fixed))
    made.qualityTable.SetName(_("{moving} to {fixed} quality").format(moving=moving, fixed=fixed))
    for node, source in zip(made.warpedSegmentations, inputs.segmentations, strict=True):
        node.SetName(_("{source} warped to {fixed}").format(source=source.GetName(), fixed=fixed))
    if made.inverseTransform is not None:
        made.inverseTransform.SetName(_("{fixed} to {moving} inverse").format(moving=moving, fixed=fixed))


def _putUnderParentOf(fixed: Any, done: RegistrationOutputs) -> None:
    """Images on the fixed grid lie where the fixed scan lies."""
    for node in (done.warpedVolume, done.jacobian, done.uncertainty, *done.warpedSegmentations):
        node.SetAndObserveTransformNodeID(fixed.GetTransformNodeID())


def _tellProvenance(
    done: RegistrationOutputs,
    inputs: RegistrationInputs,
    settings: RegistrationSettings,
    report: dict[str, Any],
) -> None:
    text = json.dumps(
        {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "fixed": inputs.fixed.GetName(),
            "moving": inputs.moving.GetName(),
            "settings": vars(settings),
            **{
                key: report[key]
                for key in ("versions", "preset", "device", "fallback", "seconds", "hashes")
                if key in report
            },
        }
    )
    for transform in filter(None, (done.transform, done.inverseTransform)):
        transform.SetAttribute(PROVENANCE, text)
        first, second = inputs.fixed, inputs.moving
        if transform is done.inverseTransform:
            first, second = second, first
        transform.SetNodeReferenceID(transform.GetFixedNodeReferenceRole(), first.GetID())
        transform.SetNodeReferenceID(transform.GetMovingNodeReferenceRole(), second.GetID())
    done.transform.SetDescription(
        _("Takes points of {fixed} to points of {moving}, in world coordinates.").format(
            fixed=inputs.fixed.GetName(), moving=inputs.moving.GetName()
        )
    )
    for node in allNodes(done):
        if node is not done.transform:
            node.SetNodeReferenceID(TRANSFORM_ROLE, done.transform.GetID())


def _storeSmall(done: RegistrationOutputs) -> None:
    """Let transforms be saved compressed, which halves them; not where NIfTI cannot hold the grid, under a shear."""
    for node in filter(None, (done.transform, done.inverseTransform)):
        if node.GetStorageNode() is None and mrml_conversion.hasRightAngles(node):
            node.AddDefaultStorageNode()
            node.GetStorageNode().SetDefaultWriteFileExtension("nii.gz")


def _display(scene: Any, done: RegistrationOutputs, inputs: RegistrationInputs, added: list[Any]) -> None:
    """Show the results as their sources are shown; what is displayed already stays as the user wants it."""
    source = inputs.moving.GetDisplayNode()
    if source is not None and not source.IsA("vtkMRMLScalarVolumeDisplayNode"):
        source = None  # a label map's: its colours are no scale of grey values
    window, level = (source.GetWindow(), source.GetLevel()) if source is not None else _ABDOMEN
    largest = done.report["uncertainty_mm"]["max"] or 1.0
    volumes = (
        (done.warpedVolume, window, level, source.GetColorNodeID() if source is not None else None),
        (done.jacobian, 2.0, 1.0, None),
        (done.uncertainty, largest, largest / 2, None),
    )
    for node, itsWindow, itsLevel, colours in volumes:
        if node.GetDisplayNode() is None:
            added.append(_added(scene, _volumeDisplay(itsWindow, itsLevel, colours)))
            node.SetAndObserveDisplayNodeID(added[-1].GetID())
    for node, segmentation in zip(done.warpedSegmentations, inputs.segmentations, strict=True):
        if node.GetDisplayNode() is None:
            mrml_conversion.copyDisplay(node, segmentation)
    for node in (done.transform, done.inverseTransform, *done.warpedSegmentations):
        if node is not None and node.GetDisplayNode() is None:
            node.CreateDefaultDisplayNodes()


def _volumeDisplay(window: float, level: float, colours: str | None) -> Any:
    """A display node with a window of its own: the automatic one goes through all voxels, 0.1 s for a scan."""
    display = slicer.vtkMRMLScalarVolumeDisplayNode()
    display.SetAutoWindowLevel(False)
    display.SetWindowLevel(window, level)
    display.SetAndObserveColorNodeID(colours or "vtkMRMLColorTableNodeGrey")
    return display


def _folder(
    scene: Any, done: RegistrationOutputs, wanted: RegistrationOutputs, inputs: RegistrationInputs
) -> int:
    """The subject-hierarchy folder of the outputs: that of the chosen transform where it has one."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    folder = 0
    if wanted.transform is not None:
        parent = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(wanted.transform))
        folder = parent if parent != hierarchy.GetSceneItemID() else 0
    if not folder:
        name = _("Registration of {moving} to {fixed}").format(
            moving=inputs.moving.GetName(), fixed=inputs.fixed.GetName()
        )
        folder = hierarchy.CreateFolderItem(hierarchy.GetSceneItemID(), name)
    chosen = set(map(id, allNodes(wanted)))
    for node in allNodes(done):
        item = hierarchy.GetItemByDataNode(node) or hierarchy.CreateItem(folder, node)
        if id(node) not in chosen or hierarchy.GetItemParent(item) == hierarchy.GetSceneItemID():
            hierarchy.SetItemParent(item, folder)
    return int(folder)

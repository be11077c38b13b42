"""A registration's parameters in a parameter node of the scene: saved with it, restored with it, several in one scene.

Nodes are kept as references, so that they survive renaming and become None when they are deleted; everything else as
text.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import slicer
from slicer.i18n import tr as _

from .parameter_fields import (
    JsonField,
    NodeField,
    NodesField,
    NumberField,
    ParameterField,
    SwitchField,
    TextField,
)
from .settings import RegistrationInputs, RegistrationOutputs, RegistrationSettings

MODULE = "PDDRegistration"
_ATTRIBUTE = "ModuleName"  # what node selectors filter by
_VOLUME, _LABELS = "vtkMRMLScalarVolumeNode", "vtkMRMLLabelMapVolumeNode"
_SEGMENTS, _POINTS = "vtkMRMLSegmentationNode", "vtkMRMLMarkupsNode"
_TRANSFORM, _TABLE = "vtkMRMLTransformNode", "vtkMRMLTableNode"
_DEFAULT = RegistrationSettings()


class RegistrationParameters:
    """The parameters of one registration.

    Args:
        node: a `vtkMRMLScriptedModuleNode`, as `create` makes it.
    """

    fixed = NodeField(_VOLUME)
    moving = NodeField(_VOLUME)
    segmentations = NodesField(_SEGMENTS, _LABELS)
    fixedSegmentation = NodeField(_SEGMENTS, _LABELS)
    fixedLandmarks = NodeField(_POINTS)
    movingLandmarks = NodeField(_POINTS)
    fixedMask = NodeField(_SEGMENTS, _VOLUME)
    movingMask = NodeField(_SEGMENTS, _VOLUME)
    initialTransform = NodeField(_TRANSFORM)

    preset = TextField(_DEFAULT.preset, needed=True)
    device = TextField(_DEFAULT.device, needed=True)
    globalStage = SwitchField(_DEFAULT.globalStage)
    levels = NumberField(_DEFAULT.levels, least=1)
    smoothness = NumberField(_DEFAULT.smoothness, float, above=0)
    instanceIterations = NumberField(_DEFAULT.instanceIterations, least=0)
    weights = TextField(_DEFAULT.weights)
    inverse = SwitchField(_DEFAULT.inverse)
    python = TextField(_DEFAULT.python)
    keepFolder = TextField(_DEFAULT.keepFolder)

    # nodes that the next registration updates
    outputTransform = NodeField(_TRANSFORM)
    outputWarpedVolume = NodeField(_VOLUME)
    outputWarpedSegmentations = NodesField(_SEGMENTS, _LABELS)
    outputJacobian = NodeField(_VOLUME)
    outputUncertainty = NodeField(_VOLUME)
    outputInverseTransform = NodeField(_TRANSFORM)
    outputQualityTable = NodeField(_TABLE)

    # what the last registration made
    resultTransform = NodeField(_TRANSFORM)
    resultWarpedVolume = NodeField(_VOLUME)
    resultWarpedSegmentations = NodesField(_SEGMENTS, _LABELS)
    resultJacobian = NodeField(_VOLUME)
    resultUncertainty = NodeField(_VOLUME)
    resultInverseTransform = NodeField(_TRANSFORM)
    resultQualityTable = NodeField(_TABLE)
    resultReport = JsonField()

    view = JsonField()  # how results are shown

    def __init__(self, node: Any) -> None:
        if not node.IsA("vtkMRMLScriptedModuleNode"):
            raise ValueError(
                f"{node.GetName()} is a {node.GetClassName()}; a vtkMRMLScriptedModuleNode is needed"
            )
        self.node = node

    @classmethod
    def create(cls, scene: Any, name: str = "") -> RegistrationParameters:
        """Add a parameter node to the scene, named `name` or the like."""
        node = slicer.vtkMRMLScriptedModuleNode()
        node.SetModuleName(MODULE)
        node.SetAttribute(_ATTRIBUTE, MODULE)
        node.SetName(scene.GenerateUniqueName(name or _("Registration")))
        return cls(scene.AddNode(node))

    @classmethod
    def all(cls, scene: Any) -> list[RegistrationParameters]:
        """Those of the scene, in the order they were added."""
        count = scene.GetNumberOfNodesByClass("vtkMRMLScriptedModuleNode")
        nodes = [scene.GetNthNodeByClass(number, "vtkMRMLScriptedModuleNode") for number in range(count)]
        return [cls(node) for node in nodes if node.GetModuleName() == MODULE]

    @classmethod
    def firstNode(cls, scene: Any) -> Any:
        """The first parameter node of the scene; made where there is none."""
        return (cls.all(scene) or [cls.create(scene)])[0].node

    @property
    def outputWarpedSegmentation(self) -> Any:
        """The first of `outputWarpedSegmentations`, for a panel that offers one."""
        return next(iter(self.outputWarpedSegmentations), None)

    @outputWarpedSegmentation.setter
    def outputWarpedSegmentation(self, node: Any) -> None:
        self.outputWarpedSegmentations = () if node is None else (node,)

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Tell of all changes inside at once, at the end."""
        before = self.node.StartModify()
        try:
            yield
        finally:
            self.node.EndModify(before)

    def inputs(self) -> RegistrationInputs:
        """The chosen nodes; `fixed` and `moving` may be None yet."""
        return RegistrationInputs(
            **{field.name: getattr(self, field.name) for field in fields(RegistrationInputs)}
        )

    def settings(self) -> RegistrationSettings:
        """How to register."""
        return RegistrationSettings(
            **{field.name: getattr(self, field.name) for field in fields(RegistrationSettings)}
        )

    def outputs(self) -> RegistrationOutputs:
        """The nodes that the next registration updates."""
        return self._read("output")

    def result(self) -> RegistrationOutputs:
        """What the last registration made, as far as it is still there.

        Without `folderItem`: the subject hierarchy numbers its items anew when a scene is loaded.
        """
        result = self._read("result")
        result.report = self.resultReport
        return result

    def setResult(self, outputs: RegistrationOutputs) -> None:
        """Remember what a registration has made."""
        with self.batch():
            for name in _NODES:
                value = getattr(outputs, name)
                setattr(self, _prefixed("result", name), tuple(value) if isinstance(value, list) else value)
            self.resultReport = outputs.report

    def problems(self) -> list[str]:
        """What was stored and cannot be used, in sentences; the defaults count instead."""
        known = [
            field for field in vars(type(self)).values() if isinstance(field, ParameterField | NodesField)
        ]
        return [problem for field in known if (problem := field.problem(self))]

    def _read(self, prefix: str) -> RegistrationOutputs:
        values = {name: getattr(self, _prefixed(prefix, name)) for name in _NODES}
        return RegistrationOutputs(
            **{name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        )


_NODES = [field.name for field in fields(RegistrationOutputs) if field.name not in ("folderItem", "report")]


def _prefixed(prefix: str, name: str) -> str:
    return prefix + name[0].upper() + name[1:]

"""Tells when something outside takes away what is shown: a node removed, the scene closed or loaded, another layout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import slicer
import vtk

from . import layouts


class SceneWatch:
    """Observes the scene and its layout node between `start()` and `stop()`."""

    def __init__(
        self,
        scene: Any,
        onRemoved: Callable[[Any], None],
        onClearing: Callable[[], None],
        onLayout: Callable[[], None],
    ):
        """`onRemoved` gets each removed node; `onClearing` comes before the scene is closed or another one read."""
        self._scene = scene
        self._onRemoved, self._onClearing, self._onLayout = onRemoved, onClearing, onLayout
        self._observations: list[tuple[Any, int]] = []

    def start(self) -> None:
        """Begin, unless that is done already."""
        if self._observations:
            return
        closing, importing = slicer.vtkMRMLScene.StartCloseEvent, slicer.vtkMRMLScene.StartImportEvent
        self._observe(self._scene, slicer.vtkMRMLScene.NodeRemovedEvent, self._nodeRemoved)
        self._observe(self._scene, closing, lambda *_: self._onClearing())
        self._observe(self._scene, importing, lambda *_: self._onClearing())
        layout = layouts.layoutNode(self._scene)
        if layout is not None:
            self._observe(layout, vtk.vtkCommand.ModifiedEvent, lambda *_: self._onLayout())

    def stop(self) -> None:
        """Leave no observer behind."""
        for node, tag in self._observations:
            node.RemoveObserver(tag)
        self._observations = []

    def _observe(self, node: Any, event: Any, callback: Callable[..., None]) -> None:
        # The lowest priority: the application's views have followed before we look at them.
        self._observations.append((node, node.AddObserver(event, callback, -1.0)))

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _nodeRemoved(self, _scene: Any, _event: Any, node: Any) -> None:
        self._onRemoved(node)

"""Tells a widget what happens to the nodes of a scene."""

from __future__ import annotations

import weakref

import vtk


class SceneWatch:
    """Calls `changed(what, node)` with "added", "removing", "removed", "modified" or "scene" (node is None)."""

    def __init__(self, scene, changed):
        self.scene = scene
        self._changed = weakref.WeakMethod(changed)
        self._observed: list[tuple] = []
        for event, what in (
            (scene.NodeAddedEvent, "added"),
            (scene.NodeAboutToBeRemovedEvent, "removing"),
            (scene.NodeRemovedEvent, "removed"),
        ):
            self._observed.append((scene, scene.AddObserver(event, self._withNode(what))))
        for event in (
            scene.EndCloseEvent,
            scene.EndImportEvent,
            scene.EndRestoreEvent,
            scene.EndBatchProcessEvent,
        ):
            self._observed.append((scene, scene.AddObserver(event, lambda *_: self._tell("scene", None))))
        for i in range(scene.GetNumberOfNodes()):
            self._observe(scene.GetNthNode(i))

    def _withNode(self, what: str):
        @vtk.calldata_type(vtk.VTK_OBJECT)
        def observer(_scene, _event, node):
            if what == "added":
                self._observe(node)
            if what == "removed":
                self._forget(node)
            self._tell(what, node)

        return observer

    def _observe(self, node) -> None:
        tag = node.AddObserver(
            vtk.vtkCommand.ModifiedEvent, lambda source, _event: self._tell("modified", source)
        )
        self._observed.append((node, tag))

    def _forget(self, node) -> None:
        for source, tag in self._observed:
            if source is node:
                source.RemoveObserver(tag)
        self._observed = [entry for entry in self._observed if entry[0] is not node]

    def _tell(self, what: str, node) -> None:
        changed = self._changed()
        if changed is None:
            self.stop()
        else:
            changed(what, node)

    def stop(self) -> None:
        for source, tag in self._observed:
            source.RemoveObserver(tag)
        self._observed = []

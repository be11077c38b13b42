"""Says when an input node has changed in itself: points were set, a segment was added, a scan was loaded into it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import slicer
import vtk
from slicer.util import VTKObservationMixin

_PAUSE_MS = 100


class InputWatch(VTKObservationMixin):
    """Watches the nodes that are chosen at the moment.

    Args:
        eventLoop: a `QtEventLoop`.
        onChanged: called after changes, once for many that come together.
    """

    def __init__(self, eventLoop: Any, onChanged: Callable[[], None]) -> None:
        VTKObservationMixin.__init__(self)
        self._eventLoop, self._onChanged = eventLoop, onChanged
        self._nodes: list[Any] = []
        self._waiting = self._closed = False

    def watch(self, nodes: Iterable[Any]) -> None:
        """Watch these nodes and no others."""
        wanted = list({id(node): node for node in nodes if node is not None}.values())
        if wanted == self._nodes:
            return
        self.removeObservers()
        self._nodes = wanted
        for node in wanted:
            for event in _eventsOf(node):
                self.addObserver(node, event, self._onEvent)

    def close(self) -> None:
        """Watch nothing any more."""
        self._closed = True
        self.removeObservers()
        self._nodes = []

    def _onEvent(self, *_arguments: Any) -> None:
        if not self._waiting:
            self._waiting = True
            self._eventLoop.later(_PAUSE_MS, self._tell)

    def _tell(self) -> None:
        self._waiting = False
        if not self._closed:
            self._onChanged()


def _eventsOf(node: Any) -> list[int]:
    events = [vtk.vtkCommand.ModifiedEvent, slicer.vtkMRMLTransformableNode.TransformModifiedEvent]
    if node.IsA("vtkMRMLMarkupsNode"):
        events += [node.PointPositionDefinedEvent, node.PointPositionUndefinedEvent, node.PointRemovedEvent]
    if node.IsA("vtkMRMLVolumeNode"):
        events.append(node.ImageDataModifiedEvent)
    if node.IsA("vtkMRMLSegmentationNode"):
        segmentation = slicer.vtkSegmentation
        events += [segmentation.SegmentAdded, segmentation.SegmentRemoved]
    return events

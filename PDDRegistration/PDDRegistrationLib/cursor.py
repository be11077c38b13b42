"""The cursor in the fixed scan and the same place in the undeformed moving scan, found through the transform."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

from .auxiliary import auxiliaryNode, findAuxiliary, removeAuxiliary

MARKER = "cursor"
_CLOSE_MM = 0.05  # how near to the wanted point an inverse must come
_STEP_MM = 0.5  # for differences of the transform
_MOST_ITERATIONS = 40

Point = Sequence[float]


class CursorWatch:
    """Calls `onMoved(slice node or None, world RAS mm)` for every move of the mouse over a view while started."""

    def __init__(self, scene: Any, onMoved: Callable[[Any, list[float]], None]):
        self._scene, self._onMoved = scene, onMoved
        self._observation: tuple[Any, int] | None = None

    def start(self) -> None:
        """Begin, unless that is done already."""
        crosshair = self._scene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
        if self._observation is None and crosshair is not None:
            event = slicer.vtkMRMLCrosshairNode.CursorPositionModifiedEvent
            self._observation = crosshair, crosshair.AddObserver(event, self._moved)

    def stop(self) -> None:
        """Leave no observer behind."""
        if self._observation is not None:
            self._observation[0].RemoveObserver(self._observation[1])
            self._observation = None

    def _moved(self, crosshair: Any, _event: Any) -> None:
        xyz, ras = [0.0] * 3, [0.0] * 3
        view = crosshair.GetCursorPositionXYZ(xyz)
        if crosshair.GetCursorPositionRAS(ras):
            self._onMoved(view, ras)


class CursorSynchronizer:
    """While started, views of the other scan follow the cursor to the corresponding point, and mark it there.

    From a fixed view the way leads through the transform, which takes fixed points to moving points (world RAS,
    mm); from a moving view through its inverse, which is not found where the transform folds: then `onMessage`
    says so and nothing moves. Scrolling without moving the mouse counts as well.
    """

    def __init__(
        self,
        scene: Any,
        transform: Any,
        fixedViews: Sequence[Any],
        movingViews: Sequence[Any],
        inverse: Any = None,
        onMessage: Callable[[str], None] | None = None,
    ):
        """`fixedViews`, `movingViews`: slice nodes. `inverse`: a transform node from moving to fixed points, which
        only gives a first guess. `onMessage` gets "" when all is well again."""
        self._scene = scene
        self._transform, self._inverse = transform, inverse
        self._fixedViews, self._movingViews = tuple(fixedViews), tuple(movingViews)
        self._onMessage = onMessage or (lambda _text: None)
        self._observations: list[tuple[Any, int]] = []
        self._cursor = CursorWatch(scene, self._cursorMoved)
        self._following = False
        self.message = ""

    def start(self) -> None:
        """Centre the moving views on what the fixed views show, then follow."""
        if self._observations:
            return
        for fixedView, movingView in zip(self._fixedViews, self._movingViews, strict=True):
            target = self.toMoving(_centre(fixedView))
            movingView.JumpSliceByCentering(*target)
        self._cursor.start()
        for view in (*self._fixedViews, *self._movingViews):
            tag = view.AddObserver(vtk.vtkCommand.ModifiedEvent, self._viewMoved)
            self._observations.append((view, tag))
        self._places = {view.GetID(): _centre(view) for view in (*self._fixedViews, *self._movingViews)}

    def stop(self) -> None:
        """Leave no observer and no node."""
        for node, tag in self._observations:
            node.RemoveObserver(tag)
        self._observations = []
        self._cursor.stop()
        removeAuxiliary(self._scene, MARKER)
        self._say("")

    def toMoving(self, point: Point) -> tuple[float, ...]:
        """The moving point of a fixed point, world RAS mm."""
        return _through(self._transform, point)

    def toFixed(self, point: Point) -> tuple[float, ...] | None:
        """The fixed point of a moving point, world RAS mm; None where none is found."""
        guess = point if self._inverse is None else _through(self._inverse, point)
        return inversePoint(self._transform, point, guess)

    def follow(self, view: Any, point: Point) -> None:
        """Take the other scan's views to the place that corresponds to a point in `view` (a slice node)."""
        fromFixed = view in self._fixedViews
        target = self.toMoving(point) if fromFixed else self.toFixed(point)
        if target is None:
            self._say(
                _(
                    "No place of the fixed scan leads here: the transform folds. The fixed views stay as they are."
                )
            )
            return
        self._say("")
        others = self._movingViews if fromFixed else self._fixedViews
        self._following = True
        try:
            for other in others:
                other.JumpSliceByOffsetting(*target)
                self._places[other.GetID()] = _centre(other)
            self._mark(target, others)
        finally:
            self._following = False

    def _cursorMoved(self, view: Any, ras: Point) -> None:
        if view in (*self._fixedViews, *self._movingViews):
            self.follow(view, ras)

    def _viewMoved(self, view: Any, _event: Any) -> None:
        """Scrolled: the point under the cursor has changed, or the middle of a view without the cursor."""
        centre = _centre(view)
        if self._following or np.allclose(centre, self._places[view.GetID()], atol=1e-6):
            return
        self._places[view.GetID()] = centre
        crosshair, xyz = self._scene.GetFirstNodeByClass("vtkMRMLCrosshairNode"), [0.0] * 3
        if crosshair is not None and crosshair.GetCursorPositionXYZ(xyz) is view:
            centre = view.GetXYToRAS().MultiplyPoint([xyz[0], xyz[1], xyz[2], 1.0])[:3]
        self.follow(view, centre)

    def _mark(self, point: Point, views: Sequence[Any]) -> None:
        node = findAuxiliary(self._scene, MARKER) or _makeMarker(self._scene)
        node.GetDisplayNode().SetViewNodeIDs([view.GetID() for view in views])
        node.SetNthControlPointPositionWorld(0, *point)

    def _say(self, text: str) -> None:
        if text != self.message:
            self.message = text
            self._onMessage(text)


def inversePoint(transform: Any, point: Point, guess: Point) -> tuple[float, ...] | None:
    """The point that the transform node (from world) takes to `point`, by Newton's method; None if none is found.

    VTK's own inverse is not asked: it reports where it has ended even if that is not the inverse.
    """
    forward = _fromWorld(transform)
    at, wanted = np.array(guess, float), np.array(point, float)
    missing = wanted - forward.TransformPoint(at)
    for _iteration in range(_MOST_ITERATIONS):
        size = float(np.linalg.norm(missing))
        if size <= _CLOSE_MM:
            return tuple(map(float, at))
        columns = [
            np.subtract(forward.TransformPoint(at + step), wanted - missing) for step in np.eye(3) * _STEP_MM
        ]
        direction = np.linalg.lstsq(np.array(columns).T / _STEP_MM, missing, rcond=1e-3)[0]
        for share in (1.0, 0.5, 0.25, 0.1):
            tried = at + share * direction
            left = wanted - forward.TransformPoint(tried)
            if np.linalg.norm(left) < size:
                at, missing = tried, left
                break
        else:
            return None
    return None


def _through(transform: Any, point: Point) -> tuple[float, ...]:
    return tuple(_fromWorld(transform).TransformPoint(list(point)))


def _fromWorld(transform: Any) -> Any:
    """The whole chain above and with the node, from world on."""
    chain = vtk.vtkGeneralTransform()
    transform.GetTransformFromWorld(chain)
    return chain


def _centre(view: Any) -> tuple[float, ...]:
    """The middle of a slice view, world RAS mm."""
    width, height, _depth = view.GetDimensions()
    return tuple(view.GetXYToRAS().MultiplyPoint([width / 2, height / 2, 0.0, 1.0])[:3])


def _makeMarker(scene: Any) -> Any:
    """A cross that shows the image through its middle and cannot be grabbed."""
    selection = scene.GetFirstNodeByClass("vtkMRMLSelectionNode")
    placed = (
        (selection.GetActivePlaceNodeClassName(), selection.GetActivePlaceNodeID()) if selection else None
    )
    node = auxiliaryNode(scene, "vtkMRMLMarkupsFiducialNode", MARKER)
    if (
        selection is not None
    ):  # the application takes any new markups for those the user wants to place points in
        selection.SetActivePlaceNodeClassName(placed[0])
        selection.SetActivePlaceNodeID(placed[1])
    node.AddControlPoint(vtk.vtkVector3d(), "")
    node.SetLocked(True)
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.SetSaveWithScene(False)
    display.SetGlyphType(display.CrossDot2D)
    display.SetUseGlyphScale(True)
    display.SetGlyphScale(6.0)
    display.SetColor(1.0, 0.85, 0.2)
    display.SetSelectedColor(1.0, 0.85, 0.2)
    display.SetPointLabelsVisibility(False)
    display.SetPropertiesLabelVisibility(False)
    return node

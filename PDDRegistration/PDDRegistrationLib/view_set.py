"""Brings layout, slice views and cursor to what a `ResultDisplay` wants."""

from __future__ import annotations

from typing import Any

from . import layouts
from .comparison import COMPARE_MOVING, OFF, PAIRED, SIDE_BY_SIDE, Comparison
from .cursor import CursorSynchronizer
from .view_state import ViewState, setComposite

# Modes of vtkMRMLSliceCompositeNode. Adding leaves the scan as it is where the map is black, which suits a map that is
# mostly neutral; one that covers the whole body would wash out over bright tissue, so it is laid over, dimming that.
_ADDED = {"Compositing": 2, "ForegroundOpacity": 0.7}
_LAID_OVER = {"Compositing": 0, "ForegroundOpacity": 0.55}
_LINKED = {"LinkedControl": 1, "HotLinkedControl": 1}


class ViewSet:
    """Which views there are, where they are and which volumes they show."""

    def __init__(self, scene: Any, views: ViewState, comparison: Comparison):
        self._scene, self._views, self._comparison = scene, views, comparison
        self._cursor: CursorSynchronizer | None = None
        self._placedFor = OFF

    def updateLayout(self, mode: str) -> None:
        """Show the views the mode needs; with the mode off those of before, where they were."""
        if mode == OFF:
            self._views.restoreLayout()
            self._views.restoreSlices()
        else:
            for node in layouts.sliceNodesShown(self._scene):
                self._views.rememberSlice(node)
            if mode in PAIRED:
                self._placePairs(mode)
            else:
                self._views.restoreLayout()
        self._placedFor = mode

    def _placePairs(self, mode: str) -> None:
        """Two views for each scan; those on the right begin at the place of those on the left."""
        self._views.rememberLayout()
        group = layouts.freeViewGroup(self._scene)
        for node in layouts.pairNodes(self._scene):  # a new size of the view would change its field of view
            self._views.rememberSlice(node)
        layouts.showPairedLayout(self._scene)
        for left, right in layouts.shownPairs(self._scene):
            for node in (left, right):
                self._views.rememberSlice(node)
            self._views.rememberGroup(right)
            if self._placedFor != mode:
                right.SetViewGroup(group if mode == COMPARE_MOVING else left.GetViewGroup())
                layouts.placeLike(right, left)

    def updateLayers(self, display: Any) -> None:
        """Show the volumes of the mode and the colour map in every view; nothing of ours where nothing is on."""
        shown = []
        if display.active:
            for sliceNode in layouts.sliceNodesShown(self._scene):
                composite = layouts.compositeNode(self._scene, sliceNode)
                if composite is not None:
                    shown.append(composite)
                    before = self._views.composite(composite)
                    setComposite(composite, self._layersOf(display, sliceNode, before))
        self._views.restoreComposites(keep=shown)
        self._comparison.keepOnly(display.mode, overlaid=display.colourMap is not None)

    def _layersOf(self, display: Any, sliceNode: Any, before: dict[str, Any]) -> dict[str, Any]:
        """What one slice view should show, given what it showed before anything was changed."""
        wanted, colourMap, mode = self._views.present(before), display.colourMap, display.mode
        if mode == COMPARE_MOVING and layouts.isRight(sliceNode):
            colourMap = None  # it belongs to the fixed scan
        if mode != OFF:
            wanted.update(self._comparison.layers(mode, display.nodes, sliceNode, colourMap is not None))
        elif colourMap is not None and wanted["BackgroundVolumeID"] is None:
            wanted["BackgroundVolumeID"] = display.nodes.fixed.GetID()
        if colourMap is not None:
            how = _LAID_OVER if colourMap is display.nodes.uncertainty else _ADDED
            wanted.update(ForegroundVolumeID=colourMap.GetID(), **how)
        if display.linked or mode == SIDE_BY_SIDE:
            wanted.update(_LINKED)
        return wanted

    def stopCursor(self) -> None:
        """Let the views go where they like."""
        if self._cursor is not None:
            self._cursor.stop()
            self._cursor = None

    def startCursor(self, display: Any) -> None:
        """Let the views of the moving scan follow the cursor in the fixed scan, and the other way round."""
        if self._cursor is not None:
            return
        pairs = layouts.shownPairs(self._scene)
        self._cursor = CursorSynchronizer(
            self._scene,
            display.nodes.transform,
            [left for left, _right in pairs],
            [right for _left, right in pairs],
            display.nodes.inverse,
            display.onMessage,
        )
        self._cursor.start()

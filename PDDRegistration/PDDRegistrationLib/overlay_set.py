"""Brings the overlays to what a `ResultDisplay` wants; what has not changed is left alone."""

from __future__ import annotations

from typing import Any

import slicer
from slicer.i18n import tr as _

from . import layouts, overlays
from .comparison import COMPARE_MOVING
from .view_state import ViewState


class OverlaySet:
    """`folds` of `voxels` fold, known while folding is shown."""

    def __init__(self, scene: Any, views: ViewState):
        self._scene, self._views = scene, views
        self._shown: dict[str, Any] = {}
        self._hidden: list[Any] = []  # the segmentations' own display nodes
        self._drawn: list[Any] = []  # the transform's
        self.folds = self.voxels = 0

    def update(self, display: Any) -> None:
        """Show and hide as `display` says."""
        nodes = display.nodes
        fixedViews: list[str] = []
        otherViews: list[str] = []
        if display.mode == COMPARE_MOVING:
            pairs = layouts.shownPairs(self._scene)
            fixedViews = [left.GetID() for left, _right in pairs]
            otherViews = [right.GetID() for _left, right in pairs]
        self._folding(nodes.jacobian if display.folding else None, fixedViews)
        self._legend(display)
        self._outlines(nodes if display.outlines else None, fixedViews, otherViews)
        kind = display.transformKind
        drawn = nodes.transform if kind != "off" else None
        self._transform(drawn, nodes, kind, display.spacingMm, fixedViews)

    def _changed(self, name: str, *wanted: Any) -> bool:
        """Whether this is shown otherwise than it is wanted; from now on it counts as shown so."""
        if self._shown.get(name) == wanted:
            return False
        self._shown[name] = wanted
        return True

    def _folding(self, jacobian: Any, viewIDs: list[str]) -> None:
        if not self._changed("folding", jacobian, viewIDs):
            return
        if jacobian is None:
            overlays.hideFolding(self._scene)
        else:
            self.folds = overlays.showFolding(self._scene, jacobian, viewIDs)
            self.voxels = slicer.util.arrayFromVolume(jacobian).size

    def _legend(self, display: Any) -> None:
        if not self._changed("legend", display.jacobian, display.uncertainty):
            return
        if display.jacobian:
            overlays.showLegend(self._scene, display.nodes.jacobian, _("det J"))
        elif display.uncertainty:
            overlays.showLegend(self._scene, display.nodes.uncertainty, _("mm"))
        else:
            overlays.hideLegend(self._scene)

    def _outlines(self, nodes: Any, fixedViews: list[str], otherViews: list[str]) -> None:
        if not self._changed("outlines", nodes, fixedViews, otherViews):
            return
        overlays.hideOutlines(self._scene)
        self._views.restoreDisplays(self._hidden)
        self._hidden = (
            overlays.showOutlines(self._scene, self._views, nodes, fixedViews, otherViews) if nodes else []
        )

    def _transform(self, transform: Any, nodes: Any, kind: str, spacingMm: float, viewIDs: list[str]) -> None:
        if not self._changed("transform", transform, kind, spacingMm, viewIDs):
            return
        if transform is None:
            self._views.restoreDisplays(self._drawn)
            self._drawn = []
        else:
            self._drawn = [transform.GetDisplayNode()]
            self._views.rememberDisplay(transform.GetDisplayNode())
            overlays.showTransform(self._scene, transform, nodes.fixed, kind, spacingMm, viewIDs)

"""`ResultDisplay`: one click shows the result of a registration in another way, one click brings everything back.

display = ResultDisplay(slicer.mrmlScene)
display.setNodes(DisplayedNodes(fixed, moving, warped, transform, jacobian=jacobian))
display.setMode("checkerboard")
display.setFolding(True)
display.restore()
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from slicer.i18n import tr as _

from . import colours, layouts, legend
from .comparison import BLEND, CHECKERBOARD, COMPARE_MOVING, FLICKER, MODES, OFF, PAIRED, REVEAL, Comparison
from .cursor import CursorWatch
from .displayed_nodes import DisplayedNodes, without
from .overlay_set import OverlaySet
from .scene_watch import SceneWatch
from .view_set import ViewSet
from .view_state import ViewState

__all__ = ["TRANSFORM_KINDS", "DisplayedNodes", "ResultDisplay"]

TRANSFORM_KINDS = ("off", "grid", "arrows", "contours")


class ResultDisplay:
    """How the views show one registration.

    `onChanged()` is called when something was switched off from outside: a node was deleted, the scene closed or
    read, another layout chosen. `onMessage(text)` is called with what the cursor has to say, "" for nothing.
    """

    def __init__(
        self,
        scene: Any,
        onChanged: Callable[[], None] | None = None,
        onMessage: Callable[[str], None] | None = None,
    ):
        self._scene = scene
        self.onChanged, self.onMessage = onChanged, onMessage
        self._views = ViewState(scene)
        self._comparison = Comparison(scene)
        self._watch = SceneWatch(scene, self._nodeRemoved, self._sceneClearing, self._layoutChanged)
        self._revealCursor = CursorWatch(scene, self._cursorMoved)
        self._overlays = OverlaySet(scene, self._views)
        self._viewSet = ViewSet(scene, self._views, self._comparison)
        self._applying = False
        self.nodes: DisplayedNodes | None = None
        self.mode = OFF
        self.transformKind, self.spacingMm = "off", 10.0
        self.folding = self.jacobian = self.uncertainty = self.outlines = self.linked = False

    # what to show

    def setNodes(self, nodes: DisplayedNodes | None) -> None:
        """Show this registration from now on; the views come back first. Gives the maps their colours."""
        self.restore()
        self.nodes = nodes
        if nodes is None:
            return
        if nodes.transform is not None and nodes.transform.GetDisplayNode() is None:
            nodes.transform.CreateDefaultDisplayNodes()
        if nodes.jacobian is not None:
            colours.giveJacobianColours(self._scene, nodes.jacobian)
        if nodes.uncertainty is not None:
            colours.giveUncertaintyColours(self._scene, nodes.uncertainty)

    def problem(self, what: str) -> str:
        """Why a mode or an overlay cannot be shown, "" if it can: the tooltip of its button.

        `what`: a mode, or "grid", "arrows", "contours", "folding", "jacobian", "uncertainty", "outlines".
        """
        if self.nodes is None:
            return _("There is no result yet: register first.")
        if what in MODES:
            return legend.missingText(self._comparison.problem(what, self.nodes))
        if what == "outlines":
            some = self.nodes.fixedSegmentations or self.nodes.warpedSegmentations
            return "" if some else _("There is no segmentation of the fixed scan and none was transferred.")
        name = {"folding": "jacobian", "uncertainty": "uncertainty", "jacobian": "jacobian"}.get(
            what, "transform"
        )
        return "" if getattr(self.nodes, name) is not None else legend.missingText(name)

    # modes

    def setMode(self, name: str) -> None:
        """Show "blend", "sideBySide", "checkerboard", "reveal", "flicker", "compareMoving", or "off".

        ValueError: no such mode, or nodes it needs are missing (`problem(name)` says which).
        """
        if name not in (*MODES, OFF):
            raise ValueError(f"there is no mode '{name}'; choose one of {', '.join((*MODES, OFF))}")
        if name != OFF and self.problem(name):
            raise ValueError(self.problem(name))
        self._comparison.flipped = False
        self.mode = name
        self._update()

    def setBlendOpacity(self, opacity: float) -> None:
        """How much of the warped scan is seen, 0 to 1."""
        self._comparison.blendOpacity = min(max(float(opacity), 0.0), 1.0)
        if self.mode == BLEND:
            self._refresh()

    def setCheckerSize(self, mm: float) -> None:
        """Edge of the checkerboard's tiles in mm."""
        self._comparison.checkerSizeMm = max(float(mm), 1.0)
        if self.mode == CHECKERBOARD:
            self._refresh()

    def setRevealPosition(self, position: float) -> None:
        """How far from the left the warped scan begins, 0 to 1 of the fixed scan."""
        self._comparison.revealPosition = min(max(float(position), 0.0), 1.0)
        if self.mode == REVEAL:
            self._refresh()

    def setRevealFollowsCursor(self, on: bool) -> None:
        """Let the border between fixed and warped be where the mouse is."""
        if on:
            self._revealCursor.start()
        else:
            self._revealCursor.stop()

    def flip(self) -> None:
        """Show the other scan in mode "flicker"; nothing in other modes. A timer of the panel calls it."""
        if self.mode == FLICKER:
            self._comparison.flipped = not self._comparison.flipped
            self._viewSet.updateLayers(self)

    # overlays

    def setTransformDisplay(self, kind: str, spacingMm: float | None = None) -> None:
        """Draw the transform: "off", "grid", "arrows" or "contours"; for contours the step in mm of displacement."""
        if kind not in TRANSFORM_KINDS:
            raise ValueError(
                f"there is no transform display '{kind}'; choose one of {', '.join(TRANSFORM_KINDS)}"
            )
        self.spacingMm = max(float(spacingMm or self.spacingMm), 1.0)
        self.transformKind = kind if self._can(kind, kind != "off") else "off"
        self._update()

    def setFolding(self, on: bool) -> None:
        """Fill what the transform folds (determinant not positive) with red."""
        self.folding = self._can("folding", on)
        self._update()

    def setJacobian(self, on: bool) -> None:
        """Lay the Jacobian determinant over the scan in colours; switches the uncertainty off."""
        self.jacobian = self._can("jacobian", on)
        self.uncertainty = self.uncertainty and not self.jacobian
        self._update()

    def setUncertainty(self, on: bool) -> None:
        """Lay the uncertainty over the scan in colours; switches the Jacobian determinant off."""
        self.uncertainty = self._can("uncertainty", on)
        self.jacobian = self.jacobian and not self.uncertainty
        self._update()

    def setOutlines(self, on: bool) -> None:
        """Outline the fixed segmentations (broad, pale) and the warped ones (thin) without fill."""
        self.outlines = self._can("outlines", on)
        self._update()

    def setLinked(self, on: bool) -> None:
        """Let the slice views scroll and zoom together."""
        self.linked = bool(on)
        self._update()

    def restore(self) -> None:
        """Everything off, and the views as they were before the first change."""
        self._switchOff()
        self._update()
        self.setRevealFollowsCursor(False)
        colours.removeUnusedColours(self._scene)

    def legend(self) -> list[str]:
        """What the colours and lines on the screen mean, a sentence each."""
        return legend.legendOf(self)

    # how it is shown

    @property
    def active(self) -> bool:
        """Whether anything is shown that `restore()` would take away."""
        flags = self.folding, self.jacobian, self.uncertainty, self.outlines, self.linked
        return self.mode != OFF or self.transformKind != "off" or any(flags)

    @property
    def flipped(self) -> bool:
        """Whether "flicker" shows the warped scan."""
        return self._comparison.flipped

    @property
    def folds(self) -> tuple[int, int]:
        """(voxels that fold, all voxels), while folding is shown."""
        return self._overlays.folds, self._overlays.voxels

    @property
    def colourMap(self) -> Any:
        """The volume shown in colours over the scans, or None."""
        if self.nodes is None:
            return None
        return (
            (self.jacobian and self.nodes.jacobian) or (self.uncertainty and self.nodes.uncertainty) or None
        )

    def _can(self, what: str, on: bool) -> bool:
        if on and self.problem(what):
            raise ValueError(self.problem(what))
        return bool(on)

    def _update(self) -> None:
        """Bring the scene to what is wanted now."""
        if self._applying:
            return
        self._applying = True
        try:
            if self.active:
                self._watch.start()
            if self.mode != COMPARE_MOVING:
                self._viewSet.stopCursor()  # first, or it would take every change of a view for a wish of the user
            self._viewSet.updateLayout(self.mode)
            self._viewSet.updateLayers(self)
            self._overlays.update(self)
            if self.mode == COMPARE_MOVING:
                self._viewSet.startCursor(self)
            if not self.active:
                self._watch.stop()
        finally:
            self._applying = False

    def _refresh(self) -> None:
        """A setting of the present mode has changed."""
        self._comparison.refresh(self.mode, self.nodes)
        self._viewSet.updateLayers(self)

    def _cursorMoved(self, _view: Any, ras: list[float]) -> None:
        if self.mode == REVEAL:
            self._comparison.followCursor(self.nodes, ras)

    # what happens outside

    def _switchOff(self) -> None:
        self.mode, self.transformKind = OFF, "off"
        self.folding = self.jacobian = self.uncertainty = self.outlines = self.linked = False

    def _changed(self) -> None:
        if self.onChanged is not None:
            self.onChanged()

    def _nodeRemoved(self, removed: Any) -> None:
        if self._applying or self.nodes is None:
            return
        left = without(self.nodes, removed)
        if left == self.nodes and not self._comparison.owns(removed):
            return
        self.nodes = left if left.fixed is not None and left.moving is not None else None
        if self.mode != OFF and (self.problem(self.mode) or self._comparison.owns(removed)):
            self.mode = OFF
        for name in ("folding", "jacobian", "uncertainty", "outlines"):
            setattr(self, name, getattr(self, name) and not self.problem(name))
        if self.transformKind != "off" and self.problem(self.transformKind):
            self.transformKind = "off"
        self._update()
        self._changed()

    def _sceneClearing(self) -> None:
        self.restore()
        self.nodes = None
        self._changed()

    def _layoutChanged(self) -> None:
        if self._applying:
            return
        if self.mode in PAIRED and not layouts.pairedLayoutShown(self._scene):
            self._views.forgetLayout()
            self.mode = OFF
            self._update()
            self._changed()
        else:
            self._viewSet.updateLayers(self)

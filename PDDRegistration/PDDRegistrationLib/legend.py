"""Sentences for people: what is on the screen, and why something cannot be shown."""

from __future__ import annotations

from typing import Any

from slicer.i18n import tr as _

from . import colours
from .comparison import BLEND, CHECKERBOARD, COMPARE_MOVING, FLICKER, REVEAL, SIDE_BY_SIDE


def missingText(what: str) -> str:
    """Why something cannot be shown, by what it lacks; "" for ""."""
    return {
        "": "",
        "fixed": _("The fixed volume is missing or empty."),
        "moving": _("The moving volume is missing or empty."),
        "warped": _("There is no warped volume: register first."),
        "transform": _("There is no transform: register first."),
        "jacobian": _("There is no Jacobian determinant: register first."),
        "uncertainty": _("There is no uncertainty: register first."),
        "grid": _("The warped volume does not lie on the fixed volume's grid: register again."),
    }[what]


def legendOf(display: Any) -> list[str]:
    """What the colours and lines that a `ResultDisplay` shows mean, a sentence each."""
    nodes = display.nodes
    if nodes is None:
        return []
    both = bool(nodes.fixedSegmentations), bool(nodes.warpedSegmentations)
    texts = [
        modeText(display.mode, nodes, display.flipped),
        transformText(display.transformKind, display.spacingMm, nodes.transform),
        foldingText(*display.folds) if display.folding else "",
        jacobianText() if display.jacobian else "",
        uncertaintyText(nodes.uncertainty) if display.uncertainty else "",
        outlinesText(*both) if display.outlines else "",
    ]
    return [text for text in texts if text]


def modeText(mode: str, nodes: Any, flipped: bool) -> str:
    """What a mode shows, "" when it is off."""
    fixed, moving = nodes.fixed.GetName(), nodes.moving.GetName()
    warped = nodes.warped.GetName() if nodes.warped is not None else ""
    text = {
        BLEND: _("Blend: {warped} over {fixed}"),
        SIDE_BY_SIDE: _("Left: {fixed}. Right: {warped}"),
        CHECKERBOARD: _("Checkerboard: tiles of {fixed} and {warped} in turn"),
        REVEAL: _("Left of the border: {fixed}. Right of it: {warped}"),
        FLICKER: _("Flicker: {warped}") if flipped else _("Flicker: {fixed}"),
        COMPARE_MOVING: _("Left: {fixed}. Right: {moving}, undeformed; the cursor's place is marked there"),
    }.get(mode, "")
    return text.format(fixed=fixed, moving=moving, warped=warped)


def transformText(kind: str, spacingMm: float, transform: Any) -> str:
    """What the drawing of the transform means, "" when it is off."""
    text = {
        "grid": _(
            "Grid: a regular grid of the moving scan, {mm:g} mm apart, where it lies in the fixed scan"
        ),
        "arrows": _(
            "Arrows, {mm:g} mm apart: from a place in the moving scan to the same tissue in the fixed one"
        ),
        "contours": _("Contours: displacement in steps of {mm:g} mm"),
    }.get(kind)
    if text is None:
        return ""
    limit = colours.displacementLimit(transform)
    return text.format(mm=spacingMm) + _("; blue moves little, red {limit:g} mm or more").format(limit=limit)


def foldingText(count: int, total: int) -> str:
    """How much folds."""
    if not count:
        return _("Folding: none")
    text = _("Folding (red): {count} voxels, {percent:.3g} % of the volume")
    return text.format(count=count, percent=100 * count / total)


def outlinesText(hasFixed: bool, hasWarped: bool) -> str:
    """How the outlines differ."""
    if hasFixed and hasWarped:
        return _("Outlines: fixed segmentation broad and pale, warped segmentation thin")
    return _("Outlines: fixed segmentation") if hasFixed else _("Outlines: warped segmentation")


def jacobianText() -> str:
    return _("Jacobian determinant: 0.5 or less blue (shrinks), 1 clear, 2 or more orange (grows)")


def uncertaintyText(uncertainty: Any) -> str:
    return _("Uncertainty: 0 mm dark, {limit:g} mm or more bright yellow").format(
        limit=colours.uncertaintyLimit(uncertainty)
    )

"""What is drawn over the scans: folding, colour legend, outlines, the transform. Each comes and goes by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _
from vtk.util.numpy_support import numpy_to_vtk

from .auxiliary import PURPOSE, auxiliaryNode, auxiliaryNodes, findAuxiliary, removeAuxiliary, removeNode
from .colours import FOLDING_COLOUR, displacementColours, displacementLimit
from .view_state import ViewState

HIDDEN = "PDDRegistration.hidden"  # attribute of a display node of the user's that is hidden for the outlines
FOLDING, LEGEND, OUTLINE = "folding", "colour legend", "outline of "
# A broad pale band for where an organ is in the fixed scan; the warped outline should run inside it.
_BAND: dict[str, float] = {"thickness": 7, "opacity": 0.45}
_LINE: dict[str, float] = {"thickness": 2, "opacity": 1.0}
_MOST_LEVELS = 20


def showFolding(scene: Any, jacobian: Any, viewIDs: list[str]) -> int:
    """Fill the voxels in which the determinant is not positive with red; returns how many there are."""
    folded = slicer.util.arrayFromVolume(jacobian) <= 0
    node = auxiliaryNode(scene, "vtkMRMLSegmentationNode", FOLDING)
    node.SetAndObserveTransformNodeID(jacobian.GetTransformNodeID())
    node.CreateDefaultDisplayNodes()
    node.GetSegmentation().RemoveAllSegments()
    count = int(np.count_nonzero(folded))
    if count:
        segment = slicer.vtkSegment()
        segment.SetName(_("Folding"))
        segment.SetColor(*FOLDING_COLOUR)
        name = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
        segment.AddRepresentation(name, _labelmap(folded, jacobian))
        node.GetSegmentation().AddSegment(segment)
    display = node.GetDisplayNode()
    display.SetSaveWithScene(False)
    display.SetVisibility3D(False)
    display.SetOpacity2DFill(0.75)
    display.SetOpacity2DOutline(1.0)
    display.SetViewNodeIDs(viewIDs)
    return count


def hideFolding(scene: Any) -> None:
    removeAuxiliary(scene, FOLDING)


def _labelmap(mask: Any, volume: Any) -> Any:
    """The box around the True voxels of `mask` (k, j, i) as an image in the volume's frame."""
    box = []
    for axis in range(3):
        inside = np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))
        box.append(slice(int(inside[0]), int(inside[-1]) + 1))
    image, geometry = slicer.vtkOrientedImageData(), vtk.vtkMatrix4x4()
    image.SetExtent([bound for part in reversed(box) for bound in (part.start, part.stop - 1)])
    volume.GetIJKToRASMatrix(geometry)
    image.SetGeometryFromImageToWorldMatrix(geometry)
    values = np.ascontiguousarray(mask[tuple(box)], np.uint8).reshape(-1)
    image.GetPointData().SetScalars(numpy_to_vtk(values, deep=True))
    return image


def showLegend(scene: Any, volume: Any, title: str) -> None:
    """A colour bar with numbers in the views that show this volume."""
    hideLegend(scene)
    node = auxiliaryNode(scene, "vtkMRMLColorLegendDisplayNode", LEGEND)
    node.SetTitleText(title)
    node.SetAndObservePrimaryDisplayNode(volume.GetDisplayNode())
    node.SetNumberOfLabels(5)
    node.SetLabelFormat("%.3g")
    node.SetSize(0.10, 0.40)
    node.SetPosition(0.98, 0.5)
    volume.AddAndObserveDisplayNodeID(node.GetID())
    node.Modified()  # the views take notice only now


def hideLegend(scene: Any) -> None:
    node = findAuxiliary(scene, LEGEND)
    if node is not None:
        volume = node.GetDisplayableNode()
        for index in reversed(range(volume.GetNumberOfDisplayNodes() if volume else 0)):
            if volume.GetNthDisplayNode(index) is node:
                volume.RemoveNthDisplayNodeID(index)
        scene.RemoveNode(node)


def showOutlines(
    scene: Any, views: ViewState, nodes: Any, fixedViews: list[str], otherViews: list[str]
) -> list[Any]:
    """Fixed outlines as broad pale bands, warped ones as lines; in `otherViews` those of the moving scan.

    The segmentations' own pictures in slice views are hidden meanwhile; returns their display nodes.
    """
    hidden = []
    moving = nodes.movingSegmentations
    for source in (*nodes.fixedSegmentations, *nodes.warpedSegmentations, *moving):
        display = source.GetDisplayNode()
        if display is not None and source.IsA("vtkMRMLSegmentationNode"):
            views.rememberDisplay(display)
            hidden.append(display)
    for source in nodes.fixedSegmentations:
        _outline(scene, source, _BAND, fixedViews)
    for source in nodes.warpedSegmentations:
        _outline(scene, source, _LINE, fixedViews)
    for source in moving if otherViews else ():
        _outline(scene, source, _LINE, otherViews)
    for display in hidden:
        if display.GetVisibility2D():
            display.SetAttribute(
                HIDDEN, "true"
            )  # goes with everything else when the display node is restored
            display.SetVisibility2D(False)
    return hidden


def showHidden(scene: Any) -> None:
    """After loading a scene that was saved with outlines: show what was hidden for them, as they are not saved."""
    for index in range(scene.GetNumberOfNodesByClass("vtkMRMLSegmentationDisplayNode")):
        display = scene.GetNthNodeByClass(index, "vtkMRMLSegmentationDisplayNode")
        if display.GetAttribute(HIDDEN):
            display.RemoveAttribute(HIDDEN)
            display.SetVisibility2D(True)


def _outline(scene: Any, source: Any, style: dict[str, float], viewIDs: list[str]) -> None:
    """Show a segmentation by a second, hidden node on the same segments, so that the user's stays as it is."""
    shown = source.GetDisplayNode()
    node = auxiliaryNode(scene, "vtkMRMLSegmentationNode", OUTLINE + source.GetID())
    if source.IsA("vtkMRMLSegmentationNode"):
        node.SetAndObserveSegmentation(source.GetSegmentation())
    else:  # a label map, which has no outlines of its own
        shown = None
        slicer.vtkSlicerSegmentationsModuleLogic.ImportLabelmapToSegmentationNode(source, node)
    node.SetAndObserveTransformNodeID(source.GetTransformNodeID())
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    wasModified = display.StartModify()
    if shown is not None:
        display.CopyContent(shown)  # which segments are seen, in which colours
    display.SetSaveWithScene(False)
    display.SetVisibility(True)
    display.SetVisibility3D(False)
    display.SetVisibility2D(True)
    display.SetVisibility2DFill(False)
    display.SetVisibility2DOutline(True)
    display.SetOpacity(1.0)
    display.SetOpacity2DOutline(style["opacity"])
    display.SetSliceIntersectionThickness(int(style["thickness"]))
    display.SetViewNodeIDs(viewIDs)
    display.EndModify(wasModified)


def hideOutlines(scene: Any) -> None:
    for node in auxiliaryNodes(scene):
        if node.GetAttribute(PURPOSE).startswith(OUTLINE):
            removeNode(scene, node)


def showTransform(
    scene: Any, transform: Any, fixed: Any, kind: str, spacingMm: float, viewIDs: list[str]
) -> None:
    """Draw the transform over the fixed scan's region as "grid", "arrows" or "contours".

    `spacingMm` is the distance between lines or arrows; for contours the step between the displacements drawn.
    """
    if transform.GetDisplayNode() is None:
        transform.CreateDefaultDisplayNodes()
    display = transform.GetDisplayNode()
    wasModified = display.StartModify()
    modes = {
        "grid": display.VIS_MODE_GRID,
        "arrows": display.VIS_MODE_GLYPH,
        "contours": display.VIS_MODE_CONTOUR,
    }
    display.SetVisualizationMode(modes[kind])
    display.SetAndObserveColorNodeID(displacementColours(scene, displacementLimit(transform)).GetID())
    display.SetAndObserveRegionNode(fixed)
    if kind == "grid":
        display.SetGridSpacingMm(spacingMm)
        display.SetGridResolutionMm(spacingMm / 4)
        display.SetGridScalePercent(100)
        display.SetGridLineDiameterMm(1.0)
        display.SetGridShowNonWarped(False)
    elif kind == "arrows":
        display.SetGlyphSpacingMm(spacingMm)
        display.SetGlyphScalePercent(100)
        display.SetGlyphType(display.GLYPH_TYPE_ARROW)
        display.SetGlyphDisplayRangeMinMm(0.3)
    else:
        levels = np.arange(1, _MOST_LEVELS + 1) * spacingMm
        display.SetContourLevelsMmFromString(" ".join(f"{level:g}" for level in levels))
        display.SetContourResolutionMm(max(2.0, spacingMm / 2))
    display.SetSliceIntersectionThickness(1 if kind == "grid" else 2)
    display.SetViewNodeIDs(viewIDs)
    display.SetVisibility2D(True)
    display.SetVisibility3D(False)  # in three dimensions it hides itself, and takes seconds
    display.SetVisibility(True)
    display.EndModify(wasModified)

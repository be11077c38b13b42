"""Segmentations and label map volumes to files and back, layer by layer, so that nothing is lost between the voxels.

A layer is one array of whole numbers that several segments share, each with a number of its own.
"""

from __future__ import annotations

import colorsys
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import vtk

from pddnet.errors import InputError
from pddnet.job import ImageFile, LabelsFile, Segment, Segmentation, WarpedSegmentation

from .array_steps import parts, writeArray
from .mrml_geometry import frameOf, geometryOf, ijkToRas, toNumpy, toVtk, voxelsOf
from .mrml_transforms import exportFromWorld, shellOf
from .mrml_volumes import checkFits, makeVolume, readImage

BINARY = "Binary labelmap"
_REFERENCE_GEOMETRY = "Reference image geometry"
_GOLDEN = 0.618034  # hues a golden section apart stay far apart
_NO_NAME = "(none)"  # what colour tables call a number without a colour
Grid = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Layers:
    """What a segmentation or label map holds: voxels (D, H, W) and 4x4 index -> RAS in the node's own frame."""

    grids: list[Grid] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)


def layersOf(node: Any) -> Generator[None, None, Layers]:
    """The layers of a segmentation node, or of a label map volume or other volume node of whole numbers.

    Raises:
        InputError: there is nothing in it, or it cannot be made into voxels.
    """
    if node.IsA("vtkMRMLSegmentationNode"):
        return (yield from _layersOfSegmentation(node))
    return (yield from _layersOfVolume(node))


def exportSegmentation(node: Any, folder: Path, name: str) -> Generator[None, None, Segmentation]:
    """The segments of a segmentation node or label map volume, with their names and label values.

    Returns:
        Geometry in the world, a linear parent transform baked in; under a parent that no matrix describes it is in the
        node's own frame, and `from_world` leads there.

    Raises:
        InputError: there are no segments, or they cannot be made into voxels.
    """
    layers = yield from layersOf(node)
    if not layers.segments:
        raise InputError(f"{node.GetName()} has no segments; draw one, or choose another segmentation")
    parent, toFrame = frameOf(node)
    files = []
    for number, (voxels, matrix) in enumerate(layers.grids):
        path = folder / f"{name}_layer{number}.npy"
        yield from writeArray(path, voxels.shape, voxels.dtype, parts(voxels))
        files.append(ImageFile(path.name, geometryOf(toFrame @ matrix, voxels.shape, node.GetName())))
    fromWorld = None
    if parent is not None:
        corners = np.concatenate([shellOf(file.geometry) for file in files])
        fromWorld = yield from exportFromWorld(parent, corners, folder, f"{name}_from_world")
    return Segmentation(node.GetName() or "", tuple(files), tuple(layers.segments), fromWorld)


def _layersOfSegmentation(node: Any) -> Generator[None, None, Layers]:
    segmentation = node.GetSegmentation()
    layers, known = Layers(), []
    for identity in segmentation.GetSegmentIDs():
        segment = segmentation.GetSegment(identity)
        if not segmentation.ContainsRepresentation(BINARY):
            segment = _voxelised(segmentation, identity, node.GetName())
            yield
        image = segment.GetRepresentation(BINARY)
        if image not in known:
            known.append(image)
            layers.grids.append(_gridOf(image, node.GetName()))
        layers.segments.append(
            Segment(identity, segment.GetName() or identity, known.index(image), segment.GetLabelValue())
        )
    return layers


def _voxelised(segmentation: Any, identity: str, what: str) -> Any:
    """A copy of a segment that has a binary label map."""
    copy = slicer.vtkSegmentation()
    copy.SetSourceRepresentationName(segmentation.GetSourceRepresentationName())
    copy.CopyConversionParameters(segmentation)
    copy.CopySegmentFromSegmentation(segmentation, identity)
    if not copy.CreateRepresentation(BINARY):
        raise InputError(
            f"segment {copy.GetSegment(identity).GetName()} of {what} cannot be made into voxels; do it in the module "
            "Segmentations (Representations, Binary labelmap, Create) or leave the segment out"
        )
    return copy.GetSegment(identity)


def _gridOf(image: Any, what: str) -> Grid:
    """Of an oriented image, whose first voxel need not have the index 0; one empty voxel if it has none."""
    if image is None or image.IsEmpty():
        return np.zeros((1, 1, 1), np.uint8), np.eye(4)
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    first = np.eye(4)
    first[:3, 3] = image.GetExtent()[::2]
    return voxelsOf(image, what), toNumpy(matrix) @ first


def _layersOfVolume(node: Any) -> Generator[None, None, Layers]:
    voxels = voxelsOf(node.GetImageData(), node.GetName())
    if voxels.dtype.kind not in "iu":
        raise InputError(
            f"{node.GetName()} has voxels of type {voxels.dtype}; labels are whole numbers: cast it to a label map"
        )
    values: set[int] = set()
    for part in parts(voxels):
        ends = np.flatnonzero(part[1:] != part[:-1])  # labels come in runs: only their ends are sorted
        values.update(np.unique(part[np.append(ends, part.size - 1)]).tolist())
        yield
    display = node.GetDisplayNode()
    colours = display.GetColorNode() if display is not None else None
    segments = [
        Segment(f"label_{value}", _nameOf(value, colours), 0, value) for value in sorted(values - {0})
    ]
    return Layers([(voxels, ijkToRas(node))], segments)


def _nameOf(value: int, colours: Any) -> str:
    known = colours is not None and 0 <= value < colours.GetNumberOfColors()
    name = colours.GetColorName(value) if known else None
    return name if name and name != _NO_NAME else f"label {value}"


def makeSegmentation(
    warped: WarpedSegmentation, folder: Path, source: Any, fixed: Any, exported: Segmentation
) -> Generator[None, None, Any]:
    """The warped segments as a node, in no scene, of the kind of the source: a segmentation or a label map volume.

    Args:
        source: the node that was exported; gives colours, terminology and tags.
        fixed: volume node whose place in its own frame the layers take, exactly.
        exported: what `exportSegmentation` made of the source, whatever has been changed in the source since.
    """
    if not source.IsA("vtkMRMLSegmentationNode"):
        return (yield from makeVolume(warped.layers[0], folder, fixed, "vtkMRMLLabelMapVolumeNode"))
    layers = []
    for file in warped.layers:
        checkFits(file, fixed)
        image = yield from readImage(file, folder, slicer.vtkOrientedImageData())
        layers.append(_placed(image, fixed))
    node = slicer.vtkMRMLSegmentationNode()
    _refer(node, fixed)
    for told in exported.segments:
        original = source.GetSegmentation().GetSegment(told.id)
        segment = slicer.vtkSegment()
        if original is not None:
            segment.DeepCopyMetadata(original)
        _addSegment(node, segment, told, layers[told.layer])
    return node


def makeSegmentationOfLabels(labels: LabelsFile, folder: Path, volume: Any) -> Generator[None, None, Any]:
    """A segmentation node, in no scene, of labels with names; `volume` is a node with the same grid."""
    checkFits(labels, volume)
    image = yield from readImage(labels, folder, slicer.vtkOrientedImageData())
    node = slicer.vtkMRMLSegmentationNode()
    _refer(node, volume)
    for number, (value, name) in enumerate(labels.names.items()):
        segment = slicer.vtkSegment()
        segment.SetColor(*colorsys.hsv_to_rgb(number * _GOLDEN % 1, 0.6, 0.9))
        _addSegment(node, segment, Segment(name, name, 0, int(value)), _placed(image, volume))
    return node


def copyDisplay(node: Any, source: Any) -> None:
    """Show a node of the scene as the source it was made from: opacities and visibility, a label map's colours."""
    shown = source.GetDisplayNode()
    if shown is None:
        return
    if node.GetDisplayNode() is None:
        node.CreateDefaultDisplayNodes()
    if node.IsA("vtkMRMLSegmentationNode") and source.IsA("vtkMRMLSegmentationNode"):
        node.GetDisplayNode().CopyContent(shown)
    else:
        node.GetDisplayNode().SetAndObserveColorNodeID(shown.GetColorNodeID())


def _placed(image: Any, volume: Any) -> Any:
    """An oriented image, moved to where a volume node has its voxels."""
    directions = vtk.vtkMatrix4x4()
    volume.GetIJKToRASDirectionMatrix(directions)
    image.SetSpacing(volume.GetSpacing())
    image.SetOrigin(volume.GetOrigin())
    image.SetDirectionMatrix(directions)
    return image


def _refer(node: Any, volume: Any) -> None:
    """Remember a volume as the grid of a segmentation.

    Not with the node's own method: outside the scene that takes the volume's parent transform for a difference between
    the two.
    """
    text = slicer.vtkSegmentationConverter.SerializeImageGeometry(
        toVtk(ijkToRas(volume)), volume.GetImageData()
    )
    node.GetSegmentation().SetConversionParameter(_REFERENCE_GEOMETRY, text)
    if volume.GetID():
        node.SetNodeReferenceID(node.GetReferenceImageGeometryReferenceRole(), volume.GetID())


def _addSegment(node: Any, segment: Any, told: Segment, layer: Any) -> None:
    segment.SetName(told.name)
    segment.SetLabelValue(told.value)
    segment.AddRepresentation(BINARY, layer)
    node.GetSegmentation().AddSegment(segment, told.id)

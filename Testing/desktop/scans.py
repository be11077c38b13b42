"""Small scans for tests of the module: two oblique CT-like volumes with organs, as nodes; and nodes as ITK images."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import SimpleITK as sitk
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

_SPACING = 5.0
_TURN = 12.0  # degrees; the grids are oblique to the world and to one another


@dataclass
class Pair:
    fixed: Any
    moving: Any
    fixedSegmentation: Any
    movingSegmentation: Any


@cache
def _patient(seed: int):
    from pddnet.synthetic import synthetic_patient

    return synthetic_patient(seed, (56, 48, 60), _SPACING)


def addPair(scene: Any) -> Pair:
    """Two synthetic patients on oblique grids: Fixed and Moving, with segmentations Organs and Atlas."""
    nodes = [
        _add(scene, _patient(seed), name, organs, turn)
        for seed, name, organs, turn in ((6, "Fixed", "Organs", _TURN), (5, "Moving", "Atlas", -_TURN / 2))
    ]
    return Pair(nodes[0][0], nodes[1][0], nodes[0][1], nodes[1][1])


def _add(scene: Any, patient: Any, name: str, organs: str, degrees: float) -> tuple[Any, Any]:
    """The patient cut out on a grid that is oblique in the patient's own world."""
    from pddnet.geometry import ImageGeometry
    from pddnet.warp import AffineTransform, resample

    turn = vtk.vtkTransform()
    turn.RotateZ(degrees)
    turn.RotateX(degrees / 2)
    matrix = turn.GetMatrix()
    rows = tuple(tuple(matrix.GetElement(r, c) for c in range(3)) for r in range(3))
    centre, size, spacing = patient.ct.geometry.centre, (50, 44, 52), (_SPACING, _SPACING, 1.1 * _SPACING)
    origin = centre - np.array(rows) @ ((np.array(size) - 1) / 2 * np.array(spacing))
    grid = ImageGeometry(size, spacing, tuple(origin), rows)
    ct = resample(patient.ct, grid, AffineTransform.identity())
    labels = resample(patient.labels, grid, AffineTransform.identity())
    volume = slicer.util.addVolumeFromArray(ct.data.round().short().numpy(), name=name)
    _place(volume, grid)
    segmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", organs)
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    for label in labels.labels:
        identity = segmentation.GetSegmentation().AddEmptySegment("", labels.name(label))
        mask = (labels.data == label).byte().numpy()
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, segmentation, identity, volume)
    volume.CreateDefaultDisplayNodes()
    volume.GetDisplayNode().SetAutoWindowLevel(False)
    volume.GetDisplayNode().SetWindowLevel(400, 40)
    segmentation.CreateDefaultDisplayNodes()
    return volume, segmentation


def _place(node: Any, grid: Any) -> None:
    from pddnet.geometry import Frame

    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(grid.matrix(Frame.INDEX, Frame.RAS).ravel().tolist())
    node.SetIJKToRASMatrix(matrix)


def lpsImage(node: Any, array: np.ndarray | None = None) -> sitk.Image:
    """A volume node, or another array on its grid, as an ITK image in the node's own frame."""
    image = sitk.GetImageFromArray(slicer.util.arrayFromVolume(node) if array is None else array)
    directions = vtk.vtkMatrix4x4()
    node.GetIJKToRASDirectionMatrix(directions)
    rotation = np.array([[directions.GetElement(r, c) for c in range(3)] for r in range(3)])
    image.SetSpacing(node.GetSpacing())
    image.SetOrigin((np.array(node.GetOrigin()) * (-1, -1, 1)).tolist())
    image.SetDirection((np.diag([-1.0, -1, 1]) @ rotation).ravel().tolist())
    return image


def lpsLabels(segmentation: Any) -> dict[str, sitk.Image]:
    """Each segment on the grid of its segmentation's reference volume, by name."""
    role = segmentation.GetReferenceImageGeometryReferenceRole()
    volume = segmentation.GetNodeReference(role)
    contents = segmentation.GetSegmentation()
    return {
        contents.GetSegment(identity).GetName(): lpsImage(
            volume, slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, identity, volume)
        )
        for identity in contents.GetSegmentIDs()
    }


def digest(node: Any) -> str:
    """Of everything a node holds: its voxels, its place, its references and settings."""
    parts = [node.GetName(), str(node.GetTransformNodeID())]
    if node.IsA("vtkMRMLVolumeNode"):
        matrix = vtk.vtkMatrix4x4()
        node.GetIJKToRASMatrix(matrix)
        elements = [matrix.GetElement(row, column) for row in range(4) for column in range(4)]
        parts += [str(elements), hashlib.sha256(slicer.util.arrayFromVolume(node).tobytes()).hexdigest()]
    if node.IsA("vtkMRMLSegmentationNode"):
        contents = node.GetSegmentation()
        for identity in contents.GetSegmentIDs():
            segment = contents.GetSegment(identity)
            voxels = slicer.util.arrayFromSegmentInternalBinaryLabelmap(node, identity)
            parts += [identity, segment.GetName(), str(segment.GetColor()), str(segment.GetLabelValue())]
            parts.append(hashlib.sha256(voxels.tobytes()).hexdigest())
    lines = [line for line in str(node).splitlines() if "Reference Count" not in line and "0x" not in line]
    return hashlib.sha256("\n".join(parts + lines).encode()).hexdigest()


def itkTransform(node: Any) -> sitk.Transform:
    """A grid transform node as SimpleITK's transform, by way of its own grid."""
    transform = node.GetTransformFromParentAs("vtkOrientedGridTransform")
    image, directions = transform.GetDisplacementGrid(), transform.GetGridDirectionMatrix()
    size = image.GetDimensions()
    vectors = vtk_to_numpy(image.GetPointData().GetScalars())
    field = sitk.GetImageFromArray(
        (vectors.reshape(*size[::-1], 3) * (-1, -1, 1)).astype(np.float64), isVector=True
    )
    rotation = np.array([[directions.GetElement(r, c) for c in range(3)] for r in range(3)])
    field.SetDirection((np.diag([-1.0, -1, 1]) @ rotation).ravel().tolist())
    field.SetOrigin((np.array(image.GetOrigin()) * (-1, -1, 1)).tolist())
    field.SetSpacing(image.GetSpacing())
    return sitk.DisplacementFieldTransform(field)

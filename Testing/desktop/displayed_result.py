"""A registration's result for pictures: a made-up patient, a made-up displacement, every output node."""

from __future__ import annotations

import numpy as np
import slicer
import vtk
from scipy import ndimage
from vtk.util.numpy_support import numpy_to_vtk

from pddnet.synthetic import ORGAN_NAMES, synthetic_patient
from PDDRegistrationLib.displayed_nodes import DisplayedNodes

_FOUND = 0.8  # part of the true displacement that the made-up registration has found
_COLOURS = {"liver": (0.87, 0.55, 0.3), "spleen": (0.6, 0.4, 0.75), "stomach": (0.95, 0.85, 0.35)}


def patientResult(scene, size=(96, 80, 72), spacing=4.0, fold=True):
    """`DisplayedNodes` with everything but the inverse, on an axis-aligned grid of `size` (x, y, z) voxels."""
    patient = synthetic_patient(3, size, spacing, "portal-venous")
    scan, labels = patient.ct.data.numpy(), patient.labels.data.numpy()
    displacement = smoothDisplacement(scan.shape, spacing, fold)
    ijkToRas = np.diag([-spacing, -spacing, spacing, 1.0])
    ijkToRas[:3, 3] = np.array([-1, -1, 1]) * patient.ct.geometry.origin
    return resultNodes(scene, scan, labels, displacement, ijkToRas)


def smoothDisplacement(shape, spacing, fold):
    """(k, j, i, 3) mm along i, j, k: a swell of up to 24 mm, and where asked a small place that folds."""
    k, j, i = np.meshgrid(*[np.linspace(-1, 1, count) for count in shape], indexing="ij")
    envelope = np.exp(-(((i - 0.1) / 0.6) ** 2 + (j / 0.6) ** 2 + (k / 0.7) ** 2))
    displacement = np.stack([20 * np.sin(2 * j) * envelope, 16 * envelope, 14 * np.cos(2 * i) * envelope], -1)
    if fold:
        extent = shape[2] * spacing / 2  # half the width in mm
        x, y, z = i * extent + 60, j * shape[1] * spacing / 2 + 10, k * shape[0] * spacing / 2
        displacement[..., 0] -= 2.4 * x * np.exp(-(x**2 + y**2 + z**2) / (2 * 16.0**2))
    return displacement


def resultNodes(scene, scan, labels, displacement, ijkToRas):
    """Nodes of a registration that has found most of a displacement (k, j, i, 3) mm along i, j, k.

    The fixed scan is `scan` pulled through the whole displacement, the warped one through what was found.
    """
    steps = np.linalg.norm(ijkToRas[:3, :3], axis=0)
    found = _FOUND * displacement
    fixed, fixedLabels = _pull(scan, displacement / steps, 1), _pull(labels, displacement / steps, 0)
    warped, warpedLabels = _pull(scan, found / steps, 1), _pull(labels, found / steps, 0)
    nodes = DisplayedNodes(
        fixed=volumeNode(fixed.astype(np.int16), "Fixed CT", ijkToRas),
        moving=volumeNode(scan.astype(np.int16), "Moving CT", ijkToRas),
        warped=volumeNode(warped.astype(np.int16), "Moving CT warped", ijkToRas),
        transform=transformNode(scene, found, ijkToRas),
        jacobian=volumeNode(determinant(found, steps), "Jacobian", ijkToRas),
        uncertainty=volumeNode(_uncertainty(scan.shape), "Uncertainty", ijkToRas),
    )
    for node in (nodes.fixed, nodes.moving, nodes.warped):
        node.GetDisplayNode().SetAutoWindowLevel(False)
        node.GetDisplayNode().SetWindowLevel(400, 40)
    nodes.fixedSegmentations = (segmentationNode(scene, fixedLabels, "Fixed organs", nodes.fixed),)
    nodes.movingSegmentations = (segmentationNode(scene, labels, "Moving organs", nodes.moving),)
    nodes.warpedSegmentations = (segmentationNode(scene, warpedLabels, "Warped organs", nodes.fixed),)
    return nodes


def volumeNode(array, name, ijkToRas):
    """A scalar volume with display node from an array (k, j, i)."""
    node = slicer.util.addVolumeFromArray(
        np.ascontiguousarray(array), ijkToRAS=vtkMatrix(ijkToRas), name=name
    )
    node.CreateDefaultDisplayNodes()
    return node


def transformNode(scene, displacement, ijkToRas):
    """A grid transform node, fixed point to moving point, of a displacement (k, j, i, 3) mm along i, j, k."""
    steps = np.linalg.norm(ijkToRas[:3, :3], axis=0)
    vectors = (displacement @ (ijkToRas[:3, :3] / steps).T).astype(np.float64)
    image = vtk.vtkImageData()
    image.SetDimensions(displacement.shape[2::-1])
    image.SetSpacing(steps)
    image.SetOrigin(ijkToRas[:3, 3])
    image.GetPointData().SetScalars(numpy_to_vtk(np.ascontiguousarray(vectors).reshape(-1, 3), deep=True))
    direction = np.eye(4)
    direction[:3, :3] = ijkToRas[:3, :3] / steps
    transform = slicer.vtkOrientedGridTransform()
    transform.SetDisplacementGridData(image)
    transform.SetGridDirectionMatrix(vtkMatrix(direction))
    transform.SetInterpolationModeToLinear()
    node = scene.AddNewNodeByClass("vtkMRMLGridTransformNode", "Moving CT to Fixed CT")
    node.SetAndObserveTransformFromParent(transform)
    node.CreateDefaultDisplayNodes()
    return node


def segmentationNode(scene, labels, name, volume):
    """A segmentation with one segment for each label in `labels` (k, j, i)."""
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    for index, label in enumerate(np.unique(labels[labels > 0])):
        text = ORGAN_NAMES.get(int(label), str(label))
        colour = _COLOURS.get(text) or tuple(0.35 + 0.6 * np.abs(np.sin(index * np.array([1.1, 2.3, 3.7]))))
        segment = node.GetSegmentation().AddEmptySegment(text, text, colour)
        mask = (labels == label).astype(np.uint8)
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, segment, volume)
    return node


def determinant(displacement, steps):
    """det(1 + gradient) of a displacement (k, j, i, 3) mm along i, j, k; `steps` are mm along i, j, k."""
    gradient = np.stack([np.gradient(displacement, steps[axis], axis=2 - axis) for axis in range(3)], -1)
    return np.linalg.det(np.eye(3) + gradient).astype(np.float32)


def vtkMatrix(array):
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(np.asarray(array, float).reshape(-1))
    return matrix


def _pull(array, displacement, order):
    """The array at index + displacement (voxels along i, j, k)."""
    index = np.indices(array.shape, dtype=float)
    at = [index[axis] + displacement[..., 2 - axis] for axis in range(3)]
    return ndimage.map_coordinates(array, at, order=order, mode="nearest")


def _uncertainty(shape):
    k, j, i = np.meshgrid(*[np.linspace(-1, 1, count) for count in shape], indexing="ij")
    bump = np.exp(-(((i + 0.3) / 0.3) ** 2 + ((j - 0.1) / 0.35) ** 2 + (k / 0.5) ** 2))
    return (0.4 + 7 * bump).astype(np.float32)

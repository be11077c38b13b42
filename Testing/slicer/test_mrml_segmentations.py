"""Segmentations and label maps go to the worker layer by layer and come back with all that belongs to a segment."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
import vtk

from desktop.nodes import (
    applied,
    bentNode,
    driven,
    exact,
    linearNode,
    pointsIn,
    rigid,
    sheared,
    sitkImage,
    sitkPoints,
    state,
    volumeNode,
)
from pddnet.errors import InputError
from pddnet.geometry import ImageGeometry, lps_to_ras
from pddnet.job import LabelsFile, SyntheticFiles, WarpedSegmentation
from pddnet.job_files import ImageFile, load_array
from PDDRegistrationLib import mrml_conversion as conversion
from PDDRegistrationLib.mrml_geometry import ijkToRas

LIVER = (
    "Segmentation category and type - 3D Slicer General Anatomy list~SCT^85756007^Tissue~SCT^10200004^Liver"
)
BINARY, SURFACE = "Binary labelmap", "Closed surface"


def masks(geometry: ImageGeometry) -> dict[str, np.ndarray]:
    """Three organs, of which two overlap, so that two layers are needed; their names."""
    centre = (np.asarray(geometry.shape) - 1) / 2
    k, j, i = np.indices(geometry.shape) - centre[:, None, None, None]
    return {
        "liver": (i**2 + j**2 + k**2 < 9).astype(np.uint8),
        "tumour": ((i - 1) ** 2 + j**2 + k**2 < 4).astype(np.uint8),
        "spleen": ((i + 2) ** 2 + (j - 3) ** 2 + (k + 3) ** 2 < 4).astype(np.uint8),
    }


def segmentation_node(scene, volume, organs):
    """A segmentation of the scene with names, colours, terminology and tags, in as few layers as there can be."""
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Organs")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    for number, (name, mask) in enumerate(organs.items()):
        identity = node.GetSegmentation().AddEmptySegment(f"id-{name}", name, [0.1 * number, 0.5, 0.9])
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, identity, volume)
    node.GetSegmentation().CollapseBinaryLabelmaps(False)
    node.GetSegmentation().GetSegment("id-liver").SetTerminology(LIVER)
    node.GetSegmentation().GetSegment("id-liver").SetTag("Reader", "first of two")
    node.GetDisplayNode().SetSegmentOpacity3D("id-liver", 0.25)
    node.GetDisplayNode().SetSegmentVisibility("id-tumour", False)
    return node


def on_fixed(exported, folder, fixed):
    """The exported layers as a worker would write them that changes nothing: each on the grid of `fixed`."""
    reference = sitkImage(slicer.util.arrayFromVolume(fixed), grid_of(fixed))
    layers = []
    for number, layer in enumerate(exported.layers):
        voxels = load_array(folder, layer, "layer")
        warped = sitk.Resample(
            sitkImage(voxels, layer.geometry), reference, sitk.Transform(), sitk.sitkNearestNeighbor
        )
        name = f"warped{exported.name}{number}.npy"
        np.save(folder / name, sitk.GetArrayFromImage(warped).astype(voxels.dtype))
        layers.append(ImageFile(name, grid_of(fixed)))
    return WarpedSegmentation(tuple(layers))


def grid_of(volume) -> ImageGeometry:
    """In the frame it is handed over in."""
    return conversion.geometryOfVolume(volume)


def round_trip(scene, node, folder, fixed):
    """Out to files and back onto the fixed grid."""
    exported = driven(conversion.exportSegmentation(node, folder, "s"))
    warped = on_fixed(exported, folder, fixed)
    return exported, scene.AddNode(driven(conversion.makeSegmentation(warped, folder, node, fixed, exported)))


def mask_in(node, identity, volume):
    """One segment as an array on a volume's grid."""
    return slicer.util.arrayFromSegmentBinaryLabelmap(node, identity, volume)


def test_overlapping_segments_come_back_with_not_a_voxel_different(scene, tmp_path, oblique_geometry):
    fixed = volumeNode(scene, oblique_geometry)
    organs = masks(oblique_geometry)
    node = segmentation_node(scene, fixed, organs)
    before = state(node, fixed)
    exported, made = round_trip(scene, node, tmp_path, fixed)
    assert state(node, fixed) == before
    assert len(exported.layers) == node.GetSegmentation().GetNumberOfLayers() == 2
    assert made.GetSegmentation().GetNumberOfLayers() == 2
    assert list(made.GetSegmentation().GetSegmentIDs()) == list(node.GetSegmentation().GetSegmentIDs())
    for name, mask in organs.items():
        assert mask.any()
        assert (mask_in(made, f"id-{name}", fixed) == mask).all()


def test_what_belongs_to_a_segment_is_kept(scene, tmp_path, oblique_geometry):
    fixed = volumeNode(scene, oblique_geometry)
    node = segmentation_node(scene, fixed, masks(oblique_geometry))
    _exported, made = round_trip(scene, node, tmp_path, fixed)
    for identity in node.GetSegmentation().GetSegmentIDs():
        first, second = (n.GetSegmentation().GetSegment(identity) for n in (node, made))
        assert (first.GetName(), first.GetColor()) == (second.GetName(), second.GetColor())
        assert first.GetLabelValue() == second.GetLabelValue()
        assert first.GetTerminology() == second.GetTerminology()
    reader = vtk.reference("")
    assert made.GetSegmentation().GetSegment("id-liver").GetTag("Reader", reader)
    assert str(reader) == "first of two"
    assert LIVER in made.GetSegmentation().GetSegment("id-liver").GetTerminology()
    assert made.GetSegmentation().ContainsRepresentation(BINARY)
    assert not made.GetSegmentation().ContainsRepresentation(SURFACE)
    conversion.copyDisplay(made, node)
    assert made.GetDisplayNode() is not node.GetDisplayNode()
    assert made.GetDisplayNode().GetSegmentOpacity3D("id-liver") == 0.25
    assert not made.GetDisplayNode().GetSegmentVisibility("id-tumour")
    assert not made.GetSegmentation().ContainsRepresentation(SURFACE)


@pytest.mark.parametrize("parent", ["none", "linear", "bent"])
def test_the_result_lies_where_the_fixed_volume_lies_and_refers_to_it(
    scene, tmp_path, oblique_geometry, parent
):
    moving = volumeNode(scene, oblique_geometry)
    node = segmentation_node(scene, moving, masks(oblique_geometry))
    fixed = volumeNode(scene, oblique_geometry)
    parents = {"linear": lambda: linearNode(scene, rigid()), "bent": lambda: bentNode(scene, (0, 0, 0))}
    if parent in parents:
        fixed.SetAndObserveTransformNodeID(parents[parent]().GetID())
    _exported, made = round_trip(scene, node, tmp_path, fixed)
    assert made.GetNodeReference(made.GetReferenceImageGeometryReferenceRole()) is fixed
    image = made.GetSegmentation().GetSegment("id-liver").GetRepresentation(BINARY)
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    assert (
        np.abs(ijkToRas(fixed) - [[matrix.GetElement(r, c) for c in range(4)] for r in range(4)]).max()
        < 1e-12
    )
    told = slicer.vtkOrientedImageData()
    text = made.GetSegmentation().GetConversionParameter("Reference image geometry")
    assert slicer.vtkSegmentationConverter.DeserializeImageGeometry(text, told, False)
    told.GetImageToWorldMatrix(matrix)
    assert (
        np.abs(ijkToRas(fixed) - [[matrix.GetElement(r, c) for c in range(4)] for r in range(4)]).max() < 1e-6
    )
    assert told.GetDimensions() == fixed.GetImageData().GetDimensions()


@pytest.mark.parametrize("matrix", [rigid(), sheared()], ids=["rigid", "sheared"])
def test_a_linear_parent_of_a_segmentation_is_baked_in(scene, tmp_path, oblique_geometry, matrix):
    volume = volumeNode(scene, oblique_geometry)
    node = segmentation_node(scene, volume, masks(oblique_geometry))
    plain = driven(conversion.exportSegmentation(node, tmp_path, "plain"))
    node.SetAndObserveTransformNodeID(linearNode(scene, matrix).GetID())
    moved = driven(conversion.exportSegmentation(node, tmp_path, "moved"))
    assert moved.from_world is None
    for one, other in zip(plain.layers, moved.layers, strict=True):
        assert np.abs(applied(matrix, one.geometry.corners()) - other.geometry.corners()).max() < 1e-9


def test_a_bent_parent_of_a_segmentation_is_handed_over_as_the_way_there(scene, tmp_path, oblique_geometry):
    volume = volumeNode(scene, oblique_geometry)
    node = segmentation_node(scene, volume, masks(oblique_geometry))
    plain = driven(conversion.exportSegmentation(node, tmp_path, "plain"))
    parent = bentNode(scene, lps_to_ras(oblique_geometry.centre), amplitude_mm=15)
    node.SetAndObserveTransformNodeID(parent.GetID())
    exported = driven(conversion.exportSegmentation(node, tmp_path, "s"))
    assert [layer.geometry for layer in exported.layers] == [layer.geometry for layer in plain.layers]
    world = exact(parent, pointsIn(oblique_geometry), toWorld=True)
    local = exact(parent, world, toWorld=False)
    assert np.abs(world - local).max() > 1
    assert np.linalg.norm(sitkPoints(exported.from_world, world, tmp_path) - local, axis=1).max() < 0.1


def test_segments_that_were_edited_since_come_back_as_they_were_sent(scene, tmp_path, oblique_geometry):
    fixed = volumeNode(scene, oblique_geometry)
    organs = masks(oblique_geometry)
    node = segmentation_node(scene, fixed, organs)
    exported = driven(conversion.exportSegmentation(node, tmp_path, "s"))
    node.GetSegmentation().RemoveSegment("id-tumour")
    warped = on_fixed(exported, tmp_path, fixed)
    made = scene.AddNode(driven(conversion.makeSegmentation(warped, tmp_path, node, fixed, exported)))
    assert made.GetSegmentation().GetSegment("id-tumour").GetName() == "tumour"
    assert all((mask_in(made, f"id-{name}", fixed) == mask).all() for name, mask in organs.items())


def test_empty_segments_come_along(scene, tmp_path, oblique_geometry):
    fixed = volumeNode(scene, oblique_geometry)
    node = segmentation_node(scene, fixed, masks(oblique_geometry))
    node.GetSegmentation().AddEmptySegment("nothing", "nothing yet")
    _exported, made = round_trip(scene, node, tmp_path, fixed)
    assert made.GetSegmentation().GetSegment("nothing").GetName() == "nothing yet"
    assert not mask_in(made, "nothing", fixed).any()
    alone = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    with pytest.raises(InputError, match="no segments"):
        driven(conversion.exportSegmentation(alone, tmp_path, "alone"))
    alone.GetSegmentation().AddEmptySegment("nothing", "nothing yet")
    _exported, made = round_trip(scene, alone, tmp_path, fixed)
    assert not mask_in(made, "nothing", fixed).any()


def test_surfaces_become_voxels_in_a_copy(scene, tmp_path):
    geometry = ImageGeometry((40, 44, 36), (1.5, 1.4, 1.6), (-30.0, -31.0, 12.0))
    fixed = volumeNode(scene, geometry)
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "from surfaces")
    node.GetSegmentation().SetSourceRepresentationName(SURFACE)
    centre = lps_to_ras(geometry.centre)
    for name, radius in (("large", 18.0), ("small", 9.0)):
        sphere = vtk.vtkSphereSource()
        sphere.SetRadius(radius)
        sphere.SetCenter(*centre)
        sphere.SetPhiResolution(60)
        sphere.SetThetaResolution(60)
        sphere.Update()
        node.AddSegmentFromClosedSurfaceRepresentation(sphere.GetOutput(), name, [1, 0, 0], name)
    node.SetReferenceImageGeometryParameterFromVolumeNode(fixed)
    times = [node.GetMTime(), node.GetSegmentation().GetMTime()]
    exported, made = round_trip(scene, node, tmp_path, fixed)
    assert [node.GetMTime(), node.GetSegmentation().GetMTime()] == times
    assert not node.GetSegmentation().ContainsRepresentation(BINARY)
    assert [segment.id for segment in exported.segments] == ["large", "small"]
    k, j, i = np.indices(geometry.shape)
    distance = np.linalg.norm(geometry.to_lps(np.stack([i, j, k], axis=-1)) - geometry.centre, axis=-1)
    for name, radius in (("large", 18.0), ("small", 9.0)):
        ball, mask = distance < radius, mask_in(made, name, fixed) != 0
        assert 2 * (ball & mask).sum() / (ball.sum() + mask.sum()) > 0.95


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32])
def test_a_label_map_gives_segments_by_its_colour_table_and_comes_back_as_a_label_map(
    scene, tmp_path, oblique_geometry, dtype
):
    fixed = volumeNode(scene, oblique_geometry)
    labels = np.zeros(oblique_geometry.shape, dtype)
    labels[2:5, 3:6, 1:4], labels[6:8, 2:4, 4:6] = 3, 120
    node = volumeNode(scene, oblique_geometry, labels, "labels", "vtkMRMLLabelMapVolumeNode")
    colours = scene.AddNewNodeByClass("vtkMRMLColorTableNode")
    colours.SetTypeToUser()
    colours.SetNumberOfColors(4)
    colours.SetColor(3, "spleen", 0.1, 0.2, 0.3, 1.0)
    node.CreateDefaultDisplayNodes()
    node.GetDisplayNode().SetAndObserveColorNodeID(colours.GetID())
    before = state(node)
    exported, made = round_trip(scene, node, tmp_path, fixed)
    assert state(node) == before
    assert [(segment.name, segment.value) for segment in exported.segments] == [
        ("spleen", 3),
        ("label 120", 120),
    ]
    assert made.GetClassName() == "vtkMRMLLabelMapVolumeNode"
    assert (slicer.util.arrayFromVolume(made) == labels).all()
    conversion.copyDisplay(made, node)
    assert made.GetDisplayNode().GetColorNodeID() == colours.GetID()


def test_labels_that_are_not_whole_numbers_are_refused(scene, tmp_path, oblique_geometry):
    node = volumeNode(
        scene, oblique_geometry, np.zeros(oblique_geometry.shape), "soft", "vtkMRMLLabelMapVolumeNode"
    )
    with pytest.raises(InputError, match=r"soft.*whole numbers"):
        driven(conversion.exportSegmentation(node, tmp_path, "s"))


@pytest.mark.parametrize("kind", ["segmentation", "label map", "volume"])
@pytest.mark.parametrize("parent", ["none", "sheared", "bent", "bent with its scan"])
def test_a_mask_is_what_simpleitk_puts_onto_the_scans_grid(scene, tmp_path, kind, parent):
    scan_geometry = ImageGeometry(
        (21, 17, 19), (2.0, 2.5, 1.75), (-20.0, -10.0, 5.0), ((0, -1, 0), (1, 0, 0), (0, 0, 1))
    )
    geometry = ImageGeometry((31, 28, 26), (1.5, 1.25, 1.5), tuple(scan_geometry.centre - 19))
    scan, own = volumeNode(scene, scan_geometry), volumeNode(scene, geometry)
    organs = masks(geometry)
    together = np.any(list(organs.values()), axis=0)
    if kind == "segmentation":
        node = segmentation_node(scene, own, organs)
    else:
        kind_of_node = "vtkMRMLLabelMapVolumeNode" if kind == "label map" else "vtkMRMLScalarVolumeNode"
        node = volumeNode(scene, geometry, (together * 7).astype(np.int16), "mask", kind_of_node)
    matrix, bent = np.eye(4), None
    matrix[:3, 3] = 3.017, -2.043, 1.029  # no point half-way between voxels
    matrix[0, 1] = 0.2013
    if parent == "sheared":
        node.SetAndObserveTransformNodeID(linearNode(scene, matrix).GetID())
    elif parent != "none":
        bent = bentNode(scene, lps_to_ras(scan_geometry.centre), amplitude_mm=12)
        node.SetAndObserveTransformNodeID(bent.GetID())
        if parent == "bent with its scan":
            scan.SetAndObserveTransformNodeID(bent.GetID())
    image = driven(conversion.exportMask(node, tmp_path, "mask", scan))
    assert image.geometry == grid_of(scan)
    k, j, i = np.indices(scan_geometry.shape)
    points = scan_geometry.to_lps(np.stack([i, j, k], axis=-1).reshape(-1, 3))
    if parent == "sheared":
        points = applied(np.linalg.inv(matrix), points)
    elif parent == "bent":
        points = exact(bent, points, toWorld=False)
    truth = sitkImage(together.astype(np.uint8), geometry)
    expected = [
        truth[index] if inside(truth, index) else 0
        for index in map(truth.TransformPhysicalPointToIndex, points.tolist())
    ]
    found = np.load(tmp_path / image.array)
    assert found.dtype == np.uint8
    assert 20 < found.sum() < found.size / 2
    assert (found.ravel() != expected).sum() == 0


def inside(image: sitk.Image, index) -> bool:
    return all(0 <= n < size for n, size in zip(index, image.GetSize(), strict=True))


def test_the_results_survive_a_bundle(scene, tmp_path, oblique_geometry):
    fixed = volumeNode(scene, oblique_geometry, name="fixed")
    organs = masks(oblique_geometry)
    node = segmentation_node(scene, fixed, organs)
    _exported, made = round_trip(scene, node, tmp_path, fixed)
    made.SetName("warped")
    conversion.copyDisplay(made, node)
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    scene.Clear(False)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    back, fixed = scene.GetFirstNodeByName("warped"), scene.GetFirstNodeByName("fixed")
    # not `fixed`: Slicer turns the axes of a left-handed volume when it reads it
    here = volumeNode(scene, oblique_geometry)
    assert back.GetNodeReference(back.GetReferenceImageGeometryReferenceRole()) is fixed
    assert back.GetSegmentation().GetNumberOfLayers() == 2
    for name, mask in organs.items():
        assert (mask_in(back, f"id-{name}", here) == mask).all()
    assert LIVER in back.GetSegmentation().GetSegment("id-liver").GetTerminology()
    assert back.GetDisplayNode().GetSegmentOpacity3D("id-liver") == 0.25


def test_a_chosen_segmentation_gets_the_content_and_stays_itself(scene, tmp_path, oblique_geometry):
    fixed = volumeNode(scene, oblique_geometry)
    organs = masks(oblique_geometry)
    node = segmentation_node(scene, fixed, organs)
    exported = driven(conversion.exportSegmentation(node, tmp_path, "s"))
    warped = on_fixed(exported, tmp_path, fixed)
    target = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "mine")
    target.CreateDefaultDisplayNodes()
    target.GetSegmentation().AddEmptySegment("old", "old")
    target.GetDisplayNode().SetOpacity3D(0.5)
    display, told = target.GetDisplayNode(), []
    target.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_arguments: told.append(1))
    conversion.updateNode(
        target, driven(conversion.makeSegmentation(warped, tmp_path, node, fixed, exported))
    )
    assert (target.GetName(), target.GetDisplayNode(), display.GetOpacity3D()) == ("mine", display, 0.5)
    assert len(told) == 1
    assert list(target.GetSegmentation().GetSegmentIDs()) == list(node.GetSegmentation().GetSegmentIDs())
    assert target.GetNodeReference(target.GetReferenceImageGeometryReferenceRole()) is fixed
    for name, mask in organs.items():
        assert (mask_in(target, f"id-{name}", fixed) == mask).all()


def test_the_synthetic_pair_becomes_volumes_and_named_segments(scene, tmp_path, oblique_geometry):
    organs = masks(oblique_geometry)
    labels = np.where(organs["tumour"], 2, organs["liver"]).astype(np.uint8)
    np.save(tmp_path / "scan.npy", labels.astype(np.int16) * 50)
    np.save(tmp_path / "labels.npy", labels)
    scan = ImageFile("scan.npy", oblique_geometry)
    named = LabelsFile("labels.npy", oblique_geometry, {"1": "liver", "2": "tumour"})
    nodes = driven(conversion.makeSyntheticPair(SyntheticFiles(scan, scan, named, named), tmp_path))
    assert list(nodes) == ["fixed", "fixedSegmentation", "moving", "movingSegmentation"]
    for made in nodes.values():
        scene.AddNode(made)
    assert grid_of(nodes["moving"]).is_close(oblique_geometry)
    for value, name in ((1, "liver"), (2, "tumour")):
        assert (mask_in(nodes["movingSegmentation"], name, nodes["moving"]) == (labels == value)).all()


def test_a_real_segmentation_comes_back_with_not_a_voxel_different(scene, tmp_path, shared):
    folder = shared / "data" / "abdomen-ct"
    logic = slicer.modules.volumes.logic()
    fixed = logic.AddArchetypeVolume(str(folder / "patient-a-ct.nii.gz"), "fixed")
    label_map = 1  # the option of AddArchetypeVolume
    labels = logic.AddArchetypeVolume(str(folder / "patient-a-organs.nii.gz"), "organs", label_map)
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "real")
    node.SetReferenceImageGeometryParameterFromVolumeNode(labels)
    assert slicer.modules.segmentations.logic().ImportLabelmapToSegmentationNode(labels, node)
    exported, made = round_trip(scene, node, tmp_path, fixed)
    truth = sitk.Resample(
        sitk.ReadImage(str(folder / "patient-a-organs.nii.gz")),
        sitk.ReadImage(str(folder / "patient-a-ct.nii.gz")),
        sitk.Transform(),
        sitk.sitkNearestNeighbor,
    )
    truth = sitk.GetArrayFromImage(truth)
    assert len(exported.segments) == len(np.unique(truth)) - 1
    for segment in exported.segments:
        assert ((mask_in(made, segment.id, fixed) != 0) == (truth == segment.value)).all()

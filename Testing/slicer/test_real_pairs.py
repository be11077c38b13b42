"""Real scans, read from their files by Slicer's own readers, registered through the scripting API."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import slicer

from desktop.scans import itkTransform, lpsImage
from PDDRegistrationLib import RegistrationLogic

PAIRS = {  # folder, fixed, moving, labels of each, settings, mean Dice to be reached
    "hippocampus": (
        "hippocampus-mr",
        ("images/hippocampus_001.nii.gz", "images/hippocampus_004.nii.gz"),
        ("labels/hippocampus_001.nii.gz", "labels/hippocampus_004.nii.gz"),
        {"preset": "generic"},
        0.6,
    ),
    "abdomen": (
        "abdomen-ct",
        ("patient-a-ct.nii.gz", "patient-b-ct.nii.gz"),
        ("patient-a-organs.nii.gz", "patient-b-organs.nii.gz"),
        {"preset": "fast"},
        0.4,
    ),
    "brain": (
        "brain-mr",
        ("subject-a-t1.nii.gz", "subject-b-t1.nii.gz"),
        ("subject-a-aseg.nii.gz", "subject-b-aseg.nii.gz"),
        {"preset": "brain-mr", "levels": 3},
        0.3,
    ),
}


def loaded(scene, path, class_name="vtkMRMLScalarVolumeNode"):
    """A volume read from a file by Slicer."""
    node = scene.AddNewNodeByClass(class_name, path.name.split(".")[0])
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(str(path))
    storage.SetCenterImage(False)
    assert storage.ReadData(node), path
    return node


@pytest.mark.parametrize("name", PAIRS)
def test_a_real_pair_is_registered_and_its_labels_are_carried_over_exactly(scene, shared, name):
    folder, scans, labels, settings, wanted = PAIRS[name]
    data = shared / "data" / folder
    fixed, moving = (loaded(scene, data / scan) for scan in scans)
    organs = [loaded(scene, data / label, "vtkMRMLLabelMapVolumeNode") for label in labels]
    done = RegistrationLogic(scene).register(
        fixed, moving, [organs[1]], fixedSegmentation=organs[0], **settings
    )
    rows = [row for row in done.report["segments"] if row["dice_after"] is not None]
    before, after = (np.mean([row[key] for row in rows]) for key in ("dice_before", "dice_after"))
    print(f"{name}: mean Dice {before:.3f} -> {after:.3f} in {done.report['seconds']:.0f} s")
    assert after > max(before, wanted)
    assert done.report["folding_percent"] == 0

    # Slicer turns left-handed volumes right-handed, so that the file's own grid will not do
    grid, source, transform = (
        lpsImage(fixed),
        sitk.ReadImage(str(data / labels[1])),
        itkTransform(done.transform),
    )
    expected = sitk.Resample(source, grid, transform, sitk.sitkNearestNeighbor, 0)
    ours, theirs = slicer.util.arrayFromVolume(done.warpedSegmentations[0]), sitk.GetArrayFromImage(expected)
    different = np.argwhere(ours != theirs)[:, ::-1]
    assert len(different) <= 10
    for (
        index
    ) in different.tolist():  # only where the point lies halfway between two voxels may rounding decide
        point = transform.TransformPoint(grid.TransformIndexToPhysicalPoint(index))
        position = np.array(source.TransformPhysicalPointToContinuousIndex(point))
        assert np.abs(position - np.floor(position) - 0.5).min() < 1e-3, (index, position)
    assert (ours != np.roll(theirs, 1, axis=1)).sum() > 1000

"""Files and transforms against SimpleITK itself, on grids where a wrong axis, sign or order shows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.testing as npt
import pytest
import SimpleITK as sitk
import torch
from hypothesis import given
from hypothesis import settings as examples

from backend.awkward import (
    covering_geometry,
    noise,
    overlapping_geometry,
    patches,
    random_field,
    random_geometry,
    seeds,
)
from pddnet.errors import InputError
from pddnet.geometry import ImageGeometry
from pddnet.interop import simpleitk as interop
from pddnet.interop.files import check_slices
from pddnet.volume import LabelMap, Volume
from pddnet.warp import AffineTransform, DisplacementField, Sequential, SpatialTransform, resample

FORMATS = ["nii.gz", "nii", "nrrd", "mha"]
LINEAR_FORMATS = ["h5", "tfm", "txt", "mat", "xfm"]


def near_identity(rng: np.random.Generator) -> AffineTransform:
    matrix = np.eye(4)
    matrix[:3, :3] += rng.normal(0, 0.1, (3, 3))
    matrix[:3, 3] = rng.normal(0, 1.0, 3)
    return AffineTransform(matrix)


def about_centre(transform: AffineTransform, geometry: ImageGeometry) -> AffineTransform:
    there = AffineTransform.translation(-geometry.centre)
    return there.followed_by(transform).followed_by(there.inverse())


def resampled_by_sitk(
    moving: Volume | LabelMap, onto: ImageGeometry, transform: sitk.Transform
) -> np.ndarray:
    reference = interop.to_sitk(Volume(torch.zeros(onto.shape), onto))
    labels = isinstance(moving, LabelMap)
    how = sitk.sitkNearestNeighbor if labels else sitk.sitkLinear
    fill = 0.0 if isinstance(moving, LabelMap) else moving.fill_value
    image = sitk.Resample(interop.to_sitk(moving), reference, transform, how, fill)
    return sitk.GetArrayFromImage(image)


def assert_resamples_as(
    transform: SpatialTransform, theirs: sitk.Transform, rng: np.random.Generator, fixed: ImageGeometry
) -> None:
    """Intensities agree to 1e-3 of their range, labels in every voxel, and enough voxels are not outside."""
    grid = overlapping_geometry(rng, fixed)
    image, labels = noise(rng, grid), patches(rng, grid)
    ours = resample(image, fixed, transform).data.numpy()
    assert (ours != image.fill_value).sum() > 15
    npt.assert_allclose(ours, resampled_by_sitk(image, fixed, theirs), atol=1e-3)
    npt.assert_array_equal(
        resample(labels, fixed, transform).data.numpy(), resampled_by_sitk(labels, fixed, theirs)
    )


@pytest.mark.parametrize("suffix", FORMATS)
@examples(max_examples=5)
@given(seeds)
def test_images_come_back_as_they_were_written(
    suffix: str, tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    rng, folder = np.random.default_rng(seed), tmp_path_factory.mktemp("images")
    geometry = random_geometry(rng)
    image, labels = noise(rng, geometry), patches(rng, geometry)
    interop.write_volume(folder / f"image.{suffix}", image)
    interop.write_label_map(folder / f"labels.{suffix}", labels)
    image_back = interop.read_volume(folder / f"image.{suffix}")
    labels_back = interop.read_label_map(folder / f"labels.{suffix}")
    assert torch.equal(image_back.data, image.data)
    assert torch.equal(labels_back.data, labels.data)
    assert image_back.geometry.is_close(geometry)
    assert labels_back.geometry.is_close(geometry)
    assert sorted(p.name for p in folder.iterdir()) == [f"image.{suffix}", f"labels.{suffix}"]


def test_voxels_lie_where_simpleitk_puts_them(oblique_geometry: ImageGeometry) -> None:
    image = noise(np.random.default_rng(0), oblique_geometry)
    theirs = interop.to_sitk(image)
    for index in ((0, 0, 0), (6, 0, 3), (2, 8, 10)):
        npt.assert_allclose(
            oblique_geometry.to_lps(index), theirs.TransformIndexToPhysicalPoint(index), atol=1e-9
        )
        assert theirs.GetPixel(index) == image.data[index[::-1]]
    assert interop.from_sitk(theirs).geometry == oblique_geometry


@pytest.mark.parametrize(
    ("values", "kind"),
    [((0, 255), np.uint8), ((0, 256), np.int16), ((-1, 3), np.int16), ((0, 1 << 20), np.int32)],
)
def test_labels_take_the_smallest_type_that_holds_them(values: tuple[int, int], kind: type) -> None:
    geometry = ImageGeometry((2, 1, 1))
    image = interop.to_sitk(LabelMap(torch.tensor([[values]]), geometry))
    assert sitk.GetArrayFromImage(image).dtype == kind


def test_whole_numbers_stored_as_floats_are_a_label_map(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(np.full((2, 3, 4), 7.0)), str(tmp_path / "labels.nii.gz"))
    assert interop.read_label_map(tmp_path / "labels.nii.gz", {7: "liver"}).name(7) == "liver"


def test_a_slicer_segmentation_brings_its_names(tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(np.array([[[0, 1, 4]]], np.uint8))
    named = {"Segment0_LabelValue": "4", "Segment0_Name": "left kidney", "Segment1_LabelValue": "1"}
    for key, value in named.items():
        image.SetMetaData(key, value)
    sitk.WriteImage(image, str(tmp_path / "a.seg.nrrd"))
    labels = interop.read_label_map(tmp_path / "a.seg.nrrd")
    assert (labels.name(4), labels.name(1)) == ("left kidney", "label 1")


def test_a_4d_image_of_one_time_point_is_a_volume(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((1, 4, 5, 6)).astype(np.float32)
    sitk.WriteImage(sitk.GetImageFromArray(values, isVector=False), str(tmp_path / "one.nrrd"))
    npt.assert_array_equal(interop.read_volume(tmp_path / "one.nrrd").data, values[0])


@pytest.mark.parametrize("suffix", ["h5", *FORMATS])
@examples(max_examples=4)
@given(seeds)
def test_simpleitk_warps_through_the_written_field_as_we_do(
    suffix: str, tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    fixed = random_geometry(rng)
    field = random_field(rng, covering_geometry(fixed))
    path = tmp_path_factory.mktemp("field") / f"field.{suffix}"
    interop.write_transform(path, field)
    if suffix == "h5":
        theirs = sitk.ReadTransform(str(path))
    else:
        theirs = sitk.DisplacementFieldTransform(sitk.ReadImage(str(path), sitk.sitkVectorFloat64))
    back = interop.read_transform(path)
    assert isinstance(back, DisplacementField)
    assert torch.equal(back.vectors, field.vectors)
    assert back.geometry.is_close(field.geometry)
    # NIfTI keeps the grid in single precision, which can decide a voxel on the edge: use what was kept
    assert_resamples_as(field if suffix == "h5" else back, theirs, rng, fixed)


@pytest.mark.parametrize("mistake", ["sign", "axes", "frame"])
def test_a_field_with_a_wrong_sign_axis_or_frame_would_be_noticed(mistake: str) -> None:
    rng = np.random.default_rng(7)
    fixed = random_geometry(rng)
    field = random_field(rng, covering_geometry(fixed))
    wrong = {
        "sign": -field.vectors,
        "axes": field.vectors.flip(-1),
        "frame": field.vectors * torch.tensor([-1.0, -1.0, 1.0]),
    }
    theirs = interop.transform_to_sitk(DisplacementField(wrong[mistake], field.geometry))
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_resamples_as(field, theirs, rng, fixed)


def test_transforms_are_stored_in_double_precision(tmp_path: Path) -> None:
    field = random_field(np.random.default_rng(0), ImageGeometry((3, 4, 5)))
    interop.write_transform(tmp_path / "field.h5", field)
    assert "_double_3_3" in (tmp_path / "field.h5").read_bytes().decode("latin-1")


def test_a_field_is_extended_to_the_scan_it_was_made_for() -> None:
    rng = np.random.default_rng(8)
    fixed = random_geometry(rng, 9, 14)
    inner = fixed.coarsened((2, 3, 2)).cropped((1, 1, 1), (3, 2, 3))  # leaves most of the scan outside
    field = random_field(rng, inner)
    meant_for_fixed = DisplacementField(field.vectors, inner, fixed)
    assert_resamples_as(meant_for_fixed, interop.transform_to_sitk(meant_for_fixed), rng, fixed)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):  # ITK applies nothing out there
        assert_resamples_as(field, interop.transform_to_sitk(field), rng, fixed)


def test_a_field_on_the_grid_of_its_scan_is_written_as_it_is() -> None:
    fixed = random_geometry(np.random.default_rng(9))
    field = DisplacementField(torch.zeros((*fixed.shape, 3)), fixed, fixed)
    assert interop.transform_to_sitk(field).Downcast().GetDisplacementField().GetSize() == fixed.size


@pytest.mark.parametrize("suffix", LINEAR_FORMATS)
def test_linear_transforms_come_back_from_every_itk_format(suffix: str, tmp_path: Path) -> None:
    transform = near_identity(np.random.default_rng(1))
    interop.write_transform(tmp_path / f"linear.{suffix}", transform)
    back = interop.read_transform(tmp_path / f"linear.{suffix}")
    assert isinstance(back, AffineTransform)
    npt.assert_allclose(back.matrix, transform.matrix, atol=1e-9)


@pytest.mark.parametrize(
    "theirs",
    [
        sitk.TranslationTransform(3, (1.0, -2.0, 3.0)),
        sitk.Euler3DTransform((5.0, 6.0, 7.0), 0.1, -0.2, 0.3, (1.0, 2.0, 3.0)),
        sitk.VersorRigid3DTransform((0.0, 0.0, 1.0), 0.4, (1.0, 2.0, 3.0), (9.0, 8.0, 7.0)),
        sitk.Similarity3DTransform(1.2, (0.0, 1.0, 0.0), 0.4, (1.0, 2.0, 3.0), (9.0, 8.0, 7.0)),
        sitk.ScaleTransform(3, (1.1, 0.9, 1.3)),
        sitk.Transform(3, sitk.sitkIdentity),
    ],
    ids=lambda transform: transform.GetName(),
)
def test_every_linear_itk_transform_becomes_its_matrix(theirs: sitk.Transform, tmp_path: Path) -> None:
    sitk.WriteTransform(theirs, str(tmp_path / "t.tfm"))
    ours = interop.read_transform(tmp_path / "t.tfm")
    points = np.random.default_rng(0).normal(0, 50, (20, 3))
    expected = [theirs.TransformPoint(point) for point in points.tolist()]
    npt.assert_allclose(ours.apply(torch.from_numpy(points)), expected, atol=1e-9)


@examples(max_examples=8)
@given(seeds)
def test_a_composite_is_applied_in_itks_order(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    rng = np.random.default_rng(seed)
    fixed = random_geometry(rng)
    field = random_field(rng, covering_geometry(fixed))
    linear = about_centre(near_identity(rng), fixed)
    path = tmp_path_factory.mktemp("composite") / "both.h5"
    interop.write_transform(path, Sequential((field, linear)))
    theirs, back = sitk.ReadTransform(str(path)), interop.read_transform(path)
    assert isinstance(back, Sequential)
    assert [type(part) for part in back.transforms] == [DisplacementField, AffineTransform]
    assert_resamples_as(back, theirs, rng, fixed)
    assert_resamples_as(Sequential((field, linear)), theirs, rng, fixed)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_resamples_as(Sequential((linear, field)), theirs, rng, fixed)


def test_a_composite_within_a_composite_keeps_the_order() -> None:
    parts = [near_identity(np.random.default_rng(n)) for n in range(3)]
    nested = sitk.CompositeTransform([interop.transform_to_sitk(p) for p in parts[:2]])
    theirs = sitk.CompositeTransform([nested, interop.transform_to_sitk(parts[2])])
    point = (10.0, -20.0, 30.0)
    ours = interop.transform_from_sitk(theirs).apply(torch.tensor(point, dtype=torch.float64))
    npt.assert_allclose(ours, theirs.TransformPoint(point), atol=1e-9)


def test_a_transform_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    spline = sitk.BSplineTransformInitializer(sitk.Image(9, 9, 9, sitk.sitkFloat32), (2, 2, 2))
    sitk.WriteTransform(spline, str(tmp_path / "spline.tfm"))
    with pytest.raises(InputError, match=r"spline.tfm.*BSpline.*displacement field"):
        interop.read_transform(tmp_path / "spline.tfm")
    sitk.WriteTransform(sitk.Euler2DTransform(), str(tmp_path / "flat.tfm"))
    with pytest.raises(InputError, match=r"flat.tfm is 2-D"):
        interop.read_transform(tmp_path / "flat.tfm")
    interop.write_volume(tmp_path / "scan.nrrd", noise(np.random.default_rng(0), ImageGeometry((3, 3, 3))))
    with pytest.raises(InputError, match=r"scan.nrrd.*1 component.*no displacement field"):
        interop.read_transform(tmp_path / "scan.nrrd")
    sitk.WriteImage(
        sitk.GetImageFromArray(np.full((3, 3, 3, 3), np.nan), isVector=True), str(tmp_path / "nan.nrrd")
    )
    with pytest.raises(InputError, match=r"nan.nrrd.*not finite"):
        interop.read_transform(tmp_path / "nan.nrrd")


def test_a_linear_transform_does_not_fit_into_an_image(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"image.*AffineTransform.*h5"):
        interop.write_transform(tmp_path / "linear.nii.gz", AffineTransform.identity())
    assert list(tmp_path.iterdir()) == []


def test_sheared_axes_are_kept_by_nrrd_and_refused_for_nifti(tmp_path: Path) -> None:
    axes = ((1.0, 0.3, 0.0), (0.0, 0.9539392, 0.0), (0.0, 0.0, 1.0))
    image = noise(np.random.default_rng(0), ImageGeometry((3, 4, 5), direction=axes))
    interop.write_volume(tmp_path / "a.nrrd", image)
    assert interop.read_volume(tmp_path / "a.nrrd").geometry.is_close(image.geometry)
    with pytest.raises(InputError, match=r"right angles.*\.nrrd"):
        interop.write_volume(tmp_path / "a.nii.gz", image)
    assert [p.name for p in tmp_path.iterdir()] == ["a.nrrd"]


@pytest.mark.parametrize(
    ("name", "write"), [("a.nrrd", interop.write_volume), ("a.h5", interop.write_transform)]
)
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    name: str, write: Callable[[Path, object], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half_written(_: object, name: str, *__: object) -> None:
        Path(name).write_bytes(b"half")
        raise RuntimeError("no space left")

    monkeypatch.setattr(sitk, "WriteImage", half_written)
    monkeypatch.setattr(sitk, "WriteTransform", half_written)
    path = tmp_path / name
    path.write_bytes(b"old")
    image = noise(np.random.default_rng(0), ImageGeometry((3, 3, 3)))
    with pytest.raises(OSError, match=r"could not be written.*free space"):
        write(path, image if path.suffix == ".nrrd" else AffineTransform.identity())
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def write_dicom_series(
    folder: Path, uid: str, values: np.ndarray, spacing: float = 2.5, tilt: float = 0
) -> None:
    """One file per slice of `values` (D, H, W), oblique, `spacing` mm apart, each shifted by `tilt` mm."""
    folder.mkdir(exist_ok=True)
    rows = np.linalg.qr(np.array([[1.0, 0.2, 0.1], [-0.2, 1.0, 0.1], [0.0, 0.0, 1.0]]))[0]
    rows *= np.sign(np.linalg.det(rows))
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for number, plane in enumerate(values):
        image = sitk.GetImageFromArray(plane.astype(np.int16))
        image.SetSpacing((0.7, 0.9))
        position = rows @ np.array([0, tilt * number, spacing * number])
        tags = {
            "0020|000e": uid,
            "0020|000d": "1.2.3",
            "0008|103e": f"series {uid[-1]}",
            "0008|0060": "CT",
            "0020|0032": "\\".join(f"{x:.6f}" for x in position),
            "0020|0037": "\\".join(f"{x:.6f}" for x in (*rows[:, 0], *rows[:, 1])),
            "0020|0013": str(number),
            "0008|0018": f"{uid}.{number}",
        }
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{uid}-{9 - number}.dcm"))
        writer.Execute(image)


def test_a_dicom_folder_is_read_in_the_order_of_its_slices(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(-1000, 1000, (4, 6, 5))
    write_dicom_series(tmp_path / "ct", "1.2.3.4", values)
    image = interop.read_volume(tmp_path / "ct")
    npt.assert_array_equal(image.data, values)
    npt.assert_allclose(image.geometry.spacing, (0.7, 0.9, 2.5), atol=1e-4)


def test_of_several_dicom_series_one_must_be_chosen(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 100, (3, 4, 5)), rng.integers(0, 100, (5, 4, 6))
    write_dicom_series(tmp_path, "1.2.3.4", first)
    write_dicom_series(tmp_path, "1.2.3.5", second)
    with pytest.raises(
        InputError, match=r"2 DICOM series.*by its UID.*1.2.3.4 \(series 4, 3 files\).*1.2.3.5"
    ):
        interop.read_volume(tmp_path)
    npt.assert_array_equal(interop.read_volume(tmp_path, series="1.2.3.5").data, second)
    with pytest.raises(InputError, match=r"no DICOM series 9.*1.2.3.4"):
        interop.read_volume(tmp_path, series="9")


def test_a_dicom_series_that_is_no_regular_grid_is_refused(tmp_path: Path) -> None:
    values = np.zeros((5, 4, 4))
    write_dicom_series(tmp_path / "gap", "1.2.3.4", values)
    next((tmp_path / "gap").glob("*-7.dcm")).unlink()
    with pytest.raises(InputError, match=r"2.5 to 5 mm apart.*missing"):
        interop.read_volume(tmp_path / "gap")
    write_dicom_series(tmp_path / "tilt", "1.2.3.4", values, tilt=0.5)
    with pytest.raises(InputError, match=r"gantry.*dcm2niix"):
        interop.read_volume(tmp_path / "tilt")
    turned = np.tile([1.0, 0, 0, 0, 1, 0], (3, 1))
    turned[2] = (0, 1, 0, 0, 0, 1)
    with pytest.raises(InputError, match="different orientations"):
        check_slices(np.zeros((3, 3)), turned, "the series")


def test_one_dicom_slice_is_a_volume_one_voxel_thick(tmp_path: Path) -> None:
    write_dicom_series(tmp_path, "1.2.3.4", np.zeros((3, 4, 4)))
    assert interop.read_volume(next(tmp_path.glob("*.dcm"))).data.shape == (1, 4, 4)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", [sitk.sitkFloat32, sitk.sitkFloat64])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_voxels_of_a_nifti_file_that_are_not_finite_are_refused(
    tmp_path: Path, suffix: str, kind: int, value: float
) -> None:
    voxels = np.random.default_rng(0).normal(size=(5, 6, 7))
    path = tmp_path / f"scan{suffix}"
    sitk.WriteImage(sitk.Cast(sitk.GetImageFromArray(voxels), kind), str(path))
    npt.assert_allclose(interop.read_volume(path).data, voxels, atol=1e-6)
    voxels[1, 2, 3] = voxels[4, 5, 6] = value
    sitk.WriteImage(sitk.Cast(sitk.GetImageFromArray(voxels), kind), str(path))
    with pytest.raises(InputError, match=r"scan.nii.* has 2 voxels that are NaN or infinite"):
        interop.read_volume(path)


def test_a_series_cannot_be_chosen_from_one_file(tmp_path: Path) -> None:
    interop.write_volume(tmp_path / "scan.nrrd", noise(np.random.default_rng(0), ImageGeometry((3, 3, 3))))
    with pytest.raises(InputError, match=r"scan.nrrd is one file"):
        interop.read_volume(tmp_path / "scan.nrrd", series="1.2.3")


@pytest.mark.parametrize("suffix", [".nii.gz", ".mha", ".nrrd"])
def test_the_header_alone_says_where_the_voxels_lie(
    tmp_path: Path, suffix: str, oblique_geometry: ImageGeometry, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"scan{suffix}"
    interop.write_volume(path, noise(np.random.default_rng(0), oblique_geometry))
    whole = interop.read_volume(path).geometry
    monkeypatch.setattr(sitk, "ReadImage", lambda *_: pytest.fail("the voxels were read"))
    found = interop.read_geometry(path)
    assert found == whole
    assert found.is_close(oblique_geometry)


def test_a_header_that_is_none_is_refused_as_its_image_would_be(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        interop.read_geometry(tmp_path / "absent.mha")
    (tmp_path / "text.mha").write_text("hello", "utf-8")
    with pytest.raises(InputError, match="truncated, damaged or not an image"):
        interop.read_geometry(tmp_path / "text.mha")
    sitk.WriteImage(sitk.Image(4, 4, sitk.sitkUInt8), str(tmp_path / "flat.mha"))
    with pytest.raises(InputError, match="is 2-D"):
        interop.read_geometry(tmp_path / "flat.mha")

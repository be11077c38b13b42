# mypy: disable-error-code="no-untyped-call"
"""Images and transforms in files and as SimpleITK's objects; nothing outside `interop` imports SimpleITK.

SimpleITK speaks mm and LPS as the backend does, and its arrays are (D, H, W) too, so nothing is flipped here.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
import torch

from pddnet.errors import InputError
from pddnet.geometry import ImageGeometry
from pddnet.interop.files import (
    IMAGE_SUFFIXES,
    TRANSFORM_SUFFIXES,
    check_readable,
    check_there,
    check_writable,
    replacing,
    suffix_of,
)
from pddnet.interop.gzip_blocks import write_gzip
from pddnet.interop.itk_images import check_scalar_3d, read_header, read_image, read_scalar, segment_names
from pddnet.volume import LabelMap, Volume
from pddnet.warp import AffineTransform, DisplacementField, Sequential, SpatialTransform

PathLike = str | Path
_NIFTI_1_HEADER, _NIFTI_1_SIZE_AT = 352, 42  # bytes, extension flag included; three numbers of 16 bits
_LARGEST_NIFTI_1 = np.iinfo(np.int16).max  # voxels along an axis
_LARGEST_LABEL = np.iinfo(np.int32).max


def read_volume(path: PathLike, series: str | None = None) -> Volume:
    """Read a scalar 3-D image: NIfTI, NRRD, MetaImage or another ITK format, or a folder with a DICOM series.

    Args:
        path: an image file, or a folder of DICOM files.
        series: the Series Instance UID, needed where the folder holds several.

    Raises:
        InputError: the file is missing, empty, truncated or no image; the image is not 3-D, scalar and real.
    """
    return from_sitk(read_scalar(Path(path), series))


def read_label_map(path: PathLike, names: Mapping[int, str] | None = None) -> LabelMap:
    """Read a segmentation; a Slicer `.seg.nrrd` brings its segment names with it.

    Args:
        path: an image file whose voxels are whole numbers.
        names: what the labels stand for; taken from the file where it tells them and none are given.

    Raises:
        InputError: as `read_volume`; or a voxel is fractional, not a number, or beyond 32 bits.
    """
    return label_map_of(read_scalar(Path(path)), Path(path), names)


def label_map_of(image: sitk.Image, path: Path, names: Mapping[int, str] | None = None) -> LabelMap:
    """The label map that an image file held; raises as `read_label_map`."""
    try:
        return label_map_from_sitk(image, segment_names(image) if names is None else names)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def read_geometry(path: PathLike) -> ImageGeometry:
    """Where the voxels of an image file lie, from its header alone; of a DICOM folder all is read.

    Raises:
        InputError: the file is missing, empty or no image, or the image is not 3-D.
    """
    path = Path(path)
    check_there(path)
    return _geometry(read_scalar(path) if path.is_dir() else read_header(path))


def write_volume(path: PathLike, volume: Volume) -> None:
    """Write a volume as float32; the file appears whole or not at all.

    Raises:
        InputError: the format is unknown, the path cannot be written, or NIfTI cannot hold the direction.
    """
    _write_image(Path(path), volume)


def write_label_map(path: PathLike, labels: LabelMap) -> None:
    """Write a label map in the smallest whole-number type, without its names; raises as `write_volume`."""
    _write_image(Path(path), labels)


def from_sitk(image: sitk.Image) -> Volume:
    """A scalar 3-D `SimpleITK.Image` as a volume; the voxels are copied.

    Raises:
        InputError: the image is not 3-D, has several components per voxel, or is complex.
    """
    check_scalar_3d(image, "the image")
    return Volume(torch.from_numpy(sitk.GetArrayViewFromImage(image).astype(np.float32)), _geometry(image))


def label_map_from_sitk(image: sitk.Image, names: Mapping[int, str] | None = None) -> LabelMap:
    """A scalar 3-D `SimpleITK.Image` of whole numbers as a label map; raises as `read_label_map`."""
    check_scalar_3d(image, "the image")
    values = sitk.GetArrayViewFromImage(image)
    largest = max(values.max(), -float(values.min()))
    if largest > _LARGEST_LABEL:
        raise InputError(
            f"the label map holds {largest:.0f}; labels go up to {_LARGEST_LABEL}: renumber them"
        )
    kind = np.float64 if values.dtype.kind == "f" else np.int32
    return LabelMap(torch.from_numpy(values.astype(kind)), _geometry(image), names or {})


def to_sitk(image: Volume | LabelMap | DisplacementField) -> sitk.Image:
    """A `SimpleITK.Image`: float32, the smallest whole-number type, or float64 vectors in mm, LPS."""
    if isinstance(image, DisplacementField):
        return _as_image(image.vectors.double().numpy(), image.geometry)
    return _as_image(_voxels(image), image.geometry)


def write_transform(path: PathLike, transform: SpatialTransform) -> None:
    """Write a transform, fixed -> moving point, mm LPS, so that ITK and Slicer read it as it is.

    `.h5`, `.tfm`, ... hold an ITK transform in double precision; an image suffix holds the displacements of a
    `DisplacementField` as a float32 vector image. Beyond the field's grid ITK applies no displacement where
    `DisplacementField` holds the border's; the grid is therefore extended first to cover `fixed_geometry`.

    Raises:
        InputError: the format is unknown or cannot hold this transform, or the path cannot be written.
    """
    path = Path(path)
    check_writable(path, (*TRANSFORM_SUFFIXES, *IMAGE_SUFFIXES))
    if suffix_of(path, TRANSFORM_SUFFIXES):
        _write(path, lambda name: sitk.WriteTransform(transform_to_sitk(transform), name))
        return
    if not isinstance(transform, DisplacementField):
        raise InputError(
            f"{path} is an image, which cannot hold a {type(transform).__name__}; name a .h5 file"
        )
    field = transform.covering_fixed()
    _check_direction_fits(path, field.geometry)
    _write(path, lambda name: sitk.WriteImage(_as_image(field.vectors.numpy(), field.geometry), name, True))


def read_transform(path: PathLike) -> SpatialTransform:
    """Read a transform, fixed -> moving point: linear, displacement field, or a composite of these.

    A vector image is read as displacements in mm, LPS. ITK applies the last transform of a composite first;
    the `Sequential` that comes back is in the order of application.

    Raises:
        InputError: the file is missing, empty, damaged, no transform, not 3-D, or of another kind (B-spline).
    """
    path = Path(path)
    check_readable(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a transform file")
    if suffix_of(path, TRANSFORM_SUFFIXES) is None:
        return _field_from_image(read_image(path), str(path))
    try:
        transform = sitk.ReadTransform(str(path))
    except RuntimeError as error:
        raise InputError(
            f"{path} cannot be read as an ITK transform; export it again, for example as .h5"
        ) from error
    return transform_from_sitk(transform, str(path))


def transform_to_sitk(transform: SpatialTransform) -> sitk.Transform:
    """A `SimpleITK.Transform` that takes fixed points to moving points, as `SimpleITK.Resample` expects.

    Raises:
        InputError: the transform is none of `AffineTransform`, `DisplacementField`, `Sequential`.
    """
    if isinstance(transform, AffineTransform):
        affine = sitk.AffineTransform(3)
        affine.SetMatrix(transform.matrix[:3, :3].ravel().tolist())
        affine.SetTranslation(transform.matrix[:3, 3].tolist())
        return affine
    if isinstance(transform, DisplacementField):
        return sitk.DisplacementFieldTransform(to_sitk(transform.covering_fixed()))
    if isinstance(transform, Sequential):
        return sitk.CompositeTransform([transform_to_sitk(part) for part in reversed(transform.transforms)])
    raise InputError(
        f"a {type(transform).__name__} cannot be written; sample it first: DisplacementField.sampled(...)"
    )


def transform_from_sitk(transform: sitk.Transform, source: str = "the transform") -> SpatialTransform:
    """The reverse of `transform_to_sitk`, raises as `read_transform`; `source` is its name in messages."""
    if transform.GetDimension() != 3:
        raise InputError(f"{source} is {transform.GetDimension()}-D; a 3-D transform is needed")
    transform = transform.Downcast()
    if isinstance(transform, sitk.CompositeTransform):
        parts = [transform.GetNthTransform(n) for n in reversed(range(transform.GetNumberOfTransforms()))]
        known = tuple(transform_from_sitk(part, source) for part in parts)
        return known[0] if len(known) == 1 else Sequential(known)
    if isinstance(transform, sitk.DisplacementFieldTransform):
        return _field_from_image(transform.GetDisplacementField(), source)
    if transform.IsLinear():
        return AffineTransform(_linear_matrix(transform))
    raise InputError(
        f"{source} holds a {transform.GetName()}; a linear transform or a displacement field is needed: "
        "convert it to a displacement field first (in Slicer: module Transforms, Convert)"
    )


def version() -> str:
    """SimpleITK's version."""
    return str(sitk.Version.VersionString())


def _write_image(path: Path, image: Volume | LabelMap) -> None:
    check_writable(path, IMAGE_SUFFIXES)
    _check_direction_fits(path, image.geometry)
    if suffix_of(path, (".nii.gz",)) and max(image.geometry.size) <= _LARGEST_NIFTI_1:
        _write(path, lambda name: _write_nifti_gz(Path(name), _voxels(image), image.geometry))
    else:
        _write(path, lambda name: sitk.WriteImage(to_sitk(image), name, True))


def _write_nifti_gz(path: Path, voxels: npt.NDArray[Any], geometry: ImageGeometry) -> None:
    """What ITK writes, some ten times as fast: its header, and the voxels compressed where that pays."""
    little = path.with_suffix("")  # .nii
    try:
        sitk.WriteImage(_as_image(np.zeros((2, 2, 2), voxels.dtype), geometry), str(little))
        header = bytearray(little.read_bytes()[:_NIFTI_1_HEADER])
    finally:
        little.unlink(missing_ok=True)
    struct.pack_into("<3h", header, _NIFTI_1_SIZE_AT, *geometry.size)
    write_gzip(path, (memoryview(header), np.ascontiguousarray(voxels).data.cast("B")))


def _write(path: Path, write: Any) -> None:
    with replacing(path) as temporary:
        try:
            write(str(temporary))
        except (RuntimeError, OSError) as error:
            raise OSError(f"{path} could not be written; check the free space of {path.parent}") from error


def _check_direction_fits(path: Path, geometry: ImageGeometry) -> None:
    if suffix_of(path, (".nii.gz", ".nii")) and not geometry.has_right_angles:
        raise InputError(
            f"{path}: NIfTI cannot hold axes that are not at right angles; write .nrrd or .mha instead"
        )


def _geometry(image: sitk.Image | sitk.ImageFileReader) -> ImageGeometry:
    d = image.GetDirection()
    return ImageGeometry(image.GetSize(), image.GetSpacing(), image.GetOrigin(), (d[:3], d[3:6], d[6:]))


def _voxels(image: Volume | LabelMap) -> npt.NDArray[Any]:
    data: npt.NDArray[Any] = image.data.cpu().numpy()
    return data.astype(_label_type(data)) if isinstance(image, LabelMap) else data


def _as_image(values: npt.NDArray[Any], geometry: ImageGeometry) -> sitk.Image:
    image = sitk.GetImageFromArray(values, isVector=values.ndim == 4)
    image.SetSpacing(geometry.spacing)
    image.SetOrigin(geometry.origin)
    image.SetDirection(np.asarray(geometry.direction).ravel().tolist())
    return image


def _label_type(values: npt.NDArray[Any]) -> type[np.generic]:
    low, high = int(values.min()), int(values.max())
    fits = (t for t in (np.uint8, np.int16, np.int32) if np.iinfo(t).min <= low and high <= np.iinfo(t).max)
    return next(fits)


def _field_from_image(image: sitk.Image, source: str) -> DisplacementField:
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 3:
        count, dimension = image.GetNumberOfComponentsPerPixel(), image.GetDimension()
        raise InputError(
            f"{source} is a {dimension}-D image with {count} component(s) per voxel, no displacement field; "
            "3-D with 3 components in mm is needed"
        )
    vectors = torch.from_numpy(sitk.GetArrayViewFromImage(image).astype(np.float32))
    if not bool(torch.isfinite(vectors).all()):
        raise InputError(f"{source} holds displacements that are not finite; write the transform again")
    return DisplacementField(vectors, _geometry(image))


def _linear_matrix(transform: sitk.Transform) -> npt.NDArray[np.float64]:
    matrix = np.eye(4)
    matrix[:3, 3] = transform.TransformPoint((0.0, 0.0, 0.0))
    matrix[:3, :3] = (
        np.array([transform.TransformPoint(unit) for unit in np.eye(3).tolist()]).T - matrix[:3, 3:]
    )
    return matrix

# mypy: disable-error-code="no-untyped-call"
"""Image files as SimpleITK reads them, checked; without PyTorch, so that it can be imported meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from pddnet.errors import InputError
from pddnet.interop.files import check_readable, check_slices


def read_scalar(path: Path, series: str | None = None) -> sitk.Image:
    """A scalar 3-D image from a file, or from a folder with a DICOM series.

    Args:
        series: the Series Instance UID, needed where the folder holds several.

    Raises:
        InputError: the file is missing, empty, truncated or no image; the image is not 3-D, scalar and real.
    """
    check_readable(path)
    if series is not None and not path.is_dir():
        raise InputError(
            f"{path} is one file, and a series can only be chosen from a folder; leave the series out"
        )
    image = _read_series(path, series) if path.is_dir() else read_image(path)
    if image.GetDimension() == 4 and image.GetSize()[3] == 1:
        image = image[:, :, :, 0]
    check_scalar_3d(image, str(path))
    return image


def read_image(path: Path) -> sitk.Image:
    """Whatever image a file holds; raises as `read_scalar`."""
    with _refusals(path):
        return sitk.ReadImage(str(path))


def read_header(path: Path) -> sitk.ImageFileReader | sitk.Image:
    """What knows size, spacing, origin and direction of a file's image without its voxels, where it is 3-D and scalar.

    Other files are read whole; raises as `read_scalar`.
    """
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    with _refusals(path):
        reader.ReadImageInformation()
    plain = reader.GetDimension() == 3 and reader.GetNumberOfComponents() == 1
    return reader if plain else read_scalar(path)


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """What ITK says of a file that it cannot read, in our words."""
    try:
        yield
    except RuntimeError as error:
        if "determinant is 0" in str(error):
            raise InputError(f"{path} has a singular direction; correct the cosines in its header") from error
        formats = "NIfTI, NRRD, MHA or DICOM"
        raise InputError(f"{path} is truncated, damaged or not an image; give a {formats} file") from error


def _read_series(folder: Path, series: str | None) -> sitk.Image:
    found = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if not found:
        raise InputError(f"{folder} is a folder without a DICOM series; name an image file or a DICOM folder")
    if series is None and len(found) > 1:
        listed = _describe(folder, found)
        raise InputError(f"{folder} holds {len(found)} DICOM series; choose one by its UID: {listed}")
    chosen = series or found[0]
    if chosen not in found:
        raise InputError(f"{folder} has no DICOM series {chosen}; it holds {_describe(folder, found)}")
    source = f"series {chosen} in {folder}"
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), chosen))
    reader.MetaDataDictionaryArrayUpdateOn()
    try:
        image: sitk.Image = reader.Execute()
    except RuntimeError as error:
        raise InputError(f"{source} is damaged or mixes image sizes; export it again") from error
    if len(reader.GetFileNames()) > 1:
        check_slices(_slice_numbers(reader, "0020|0032"), _slice_numbers(reader, "0020|0037"), source)
    return image


def _slice_numbers(reader: sitk.ImageSeriesReader, tag: str) -> npt.NDArray[np.float64]:
    count = len(reader.GetFileNames())
    return np.array(
        [[float(n) for n in reader.GetMetaData(slice_, tag).split("\\")] for slice_ in range(count)]
    )


def _describe(folder: Path, series: tuple[str, ...]) -> str:
    parts = []
    for uid in series:
        files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid)
        reader = sitk.ImageFileReader()
        reader.SetFileName(files[0])
        reader.ReadImageInformation()
        title = reader.GetMetaData("0008|103e").strip() if reader.HasMetaDataKey("0008|103e") else "untitled"
        parts.append(f"{uid} ({title}, {len(files)} files)")
    return "; ".join(parts)


def check_scalar_3d(image: sitk.Image, source: str) -> None:
    """Refuse what is not 3-D, scalar and real; `source` is its name in messages."""
    dimension, size = image.GetDimension(), image.GetSize()
    if dimension != 3:
        remedy = (
            "name the folder of the whole series" if dimension == 2 else "extract one time point or channel"
        )
        raise InputError(f"{source} is {dimension}-D, size {size}; a 3-D image is needed: {remedy}")
    if image.GetNumberOfComponentsPerPixel() != 1:
        count = image.GetNumberOfComponentsPerPixel()
        raise InputError(
            f"{source} has {count} components per voxel (vector or colour); extract one of them first"
        )
    if "complex" in image.GetPixelIDTypeAsString():
        raise InputError(f"{source} has complex voxels; take the magnitude first")


def segment_names(image: sitk.Image) -> dict[int, str]:
    """What the labels of Slicer's `.seg.nrrd` stand for: SegmentN_LabelValue and SegmentN_Name."""
    owners = [
        key.removesuffix("_LabelValue") for key in image.GetMetaDataKeys() if key.endswith("_LabelValue")
    ]
    named = [owner for owner in owners if image.HasMetaDataKey(f"{owner}_Name")]
    return {
        int(image.GetMetaData(f"{owner}_LabelValue")): image.GetMetaData(f"{owner}_Name") for owner in named
    }

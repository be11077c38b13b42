"""Compressed files written by hand: what any other program reads from them, and what they cost."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path

import numpy as np
import numpy.testing as npt
import pytest
import SimpleITK as sitk
import torch

from backend.awkward import noise, patches, random_geometry
from pddnet.errors import InputError
from pddnet.geometry import ImageGeometry
from pddnet.interop import simpleitk as interop
from pddnet.interop.files import check_readable
from pddnet.interop.gzip_blocks import write_gzip
from pddnet.volume import LabelMap, Volume

NOISE = np.random.default_rng(0).integers(0, 256, 3 << 20, np.uint8).tobytes()


@pytest.mark.parametrize(
    "parts",
    [[], [b""], [b"a"], [bytes(5 << 20)], [NOISE], [b"header", NOISE, bytes(3 << 20), NOISE[:65535]]],
    ids=["nothing", "an empty part", "one byte", "zeros", "noise", "parts"],
)
def test_what_is_written_comes_back(parts: list[bytes], tmp_path: Path) -> None:
    write_gzip(tmp_path / "a.gz", [memoryview(part) for part in parts])
    assert gzip.decompress((tmp_path / "a.gz").read_bytes()) == b"".join(parts)


def test_noise_is_stored_and_the_rest_compressed(tmp_path: Path) -> None:
    write_gzip(tmp_path / "noise", [memoryview(NOISE)])
    write_gzip(tmp_path / "zeros", [memoryview(bytes(len(NOISE)))])
    assert (tmp_path / "noise").stat().st_size < 1.001 * len(NOISE)
    assert (tmp_path / "zeros").stat().st_size < 0.01 * len(NOISE)


def test_a_damaged_byte_is_noticed(tmp_path: Path) -> None:
    write_gzip(tmp_path / "a.gz", [memoryview(NOISE)])
    damaged = bytearray((tmp_path / "a.gz").read_bytes())
    damaged[len(damaged) // 2] ^= 1
    with pytest.raises(gzip.BadGzipFile, match="CRC"):
        gzip.decompress(damaged)


def images() -> list[Volume | LabelMap]:
    rng = np.random.default_rng(5)
    grids = [random_geometry(rng) for _ in range(4)]
    many = LabelMap(torch.tensor([-70_000, 70_000]).repeat(4).view(2, 2, 2), ImageGeometry((2, 2, 2)))
    some = LabelMap(torch.tensor([-1, 300]).repeat(4).view(2, 2, 2), ImageGeometry((2, 2, 2)))
    return [noise(rng, grids[0]), noise(rng, grids[1]), patches(rng, grids[2]), many, some]


@pytest.mark.parametrize("image", images())
def test_a_nifti_file_is_the_one_that_itk_writes(image: Volume | LabelMap, tmp_path: Path) -> None:
    write = interop.write_volume if isinstance(image, Volume) else interop.write_label_map
    write(tmp_path / "ours.nii.gz", image)  # type: ignore[arg-type]
    sitk.WriteImage(interop.to_sitk(image), str(tmp_path / "itks.nii.gz"), True)
    ours, itks = (gzip.decompress((tmp_path / name).read_bytes()) for name in ("ours.nii.gz", "itks.nii.gz"))
    assert ours == itks
    theirs = sitk.ReadImage(str(tmp_path / "ours.nii.gz"))
    npt.assert_array_equal(sitk.GetArrayFromImage(theirs), image.data.numpy())
    assert {path.name for path in tmp_path.iterdir()} == {"ours.nii.gz", "itks.nii.gz"}


@pytest.mark.parametrize("broken", ["nothing", "cut", "flipped", "second member cut"])
def test_a_compressed_scan_of_several_members_is_checked_to_its_end(broken: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    path = tmp_path / "scan.nii.gz"
    interop.write_volume(tmp_path / "scan.nii", noise(rng, ImageGeometry((30, 40, 50))))
    whole = (tmp_path / "scan.nii").read_bytes()
    first, second = gzip.compress(whole[:1001]), gzip.compress(whole[1001:])
    flipped = bytearray(second)
    flipped[len(second) // 2] ^= 1
    content = {
        "nothing": first + second + bytes(512),  # and zeros up to the end of a block
        "cut": first,
        "flipped": first + flipped,
        "second member cut": first + second[:-4],
    }
    path.write_bytes(content[broken])
    if broken == "nothing":
        check_readable(path)
        return
    with pytest.raises(InputError, match="truncated"):
        check_readable(path)


def test_a_scan_far_larger_than_its_file_is_unpacked_piece_by_piece(tmp_path: Path) -> None:
    path, scan = (
        tmp_path / "zeros.nii.gz",
        Volume(torch.zeros((128, 256, 256)), ImageGeometry((256, 256, 128))),
    )
    interop.write_volume(path, scan)
    tracemalloc.start()
    check_readable(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert path.stat().st_size < 1 << 20
    assert peak < 24 << 20  # of 32 MB

"""Images read in the background: handed over in any order, failures told to whoever asks, stopped while waiting."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import numpy.testing as npt
import pytest

from backend.awkward import noise, patches, random_geometry
from pddnet.errors import InputError, RegistrationCancelled
from pddnet.interop import itk_images
from pddnet.interop import simpleitk as interop
from pddnet.interop.read_ahead import RegisterImages


def nobody_asks() -> None:
    """Nothing stops the wait."""


def test_what_is_read_ahead_is_what_the_files_hold(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    fixed, moving = noise(rng, random_geometry(rng)), noise(rng, random_geometry(rng))
    labels = patches(rng, moving.geometry)
    paths = [tmp_path / name for name in ("fixed.nii.gz", "moving.nrrd", "labels.nii.gz")]
    interop.write_volume(paths[0], fixed)
    interop.write_volume(paths[1], moving)
    interop.write_label_map(paths[2], labels)
    images = RegisterImages.ahead((paths[0], None), (paths[1], None), [paths[2]])
    found = interop.label_map_of(images.labels[0].image(nobody_asks), paths[2])
    assert found.geometry.is_close(labels.geometry)
    npt.assert_array_equal(found.data, labels.data)
    for image, scan in ((images.moving, moving), (images.fixed, fixed)):
        read = interop.from_sitk(image.image(nobody_asks))
        assert read.geometry.is_close(scan.geometry)
        npt.assert_array_equal(read.data, scan.data)


def test_a_file_that_cannot_be_read_does_not_keep_the_others_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    (tmp_path / "fixed.nii.gz").write_bytes(b"no image")
    interop.write_volume(tmp_path / "moving.nii.gz", noise(rng, random_geometry(rng)))
    images = RegisterImages.ahead(
        (tmp_path / "fixed.nii.gz", None), (tmp_path / "moving.nii.gz", None), [tmp_path / "gone.nii"]
    )
    assert images.moving.image(nobody_asks).GetDimension() == 3
    with pytest.raises(InputError, match="damaged"):
        images.fixed.image(nobody_asks)
    with pytest.raises(InputError, match="does not exist"):
        images.labels[0].image(nobody_asks)


def test_waiting_for_a_slow_disk_can_be_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on = threading.Event()
    monkeypatch.setattr(itk_images, "read_scalar", lambda *_: goes_on.wait(30))

    def stop() -> None:
        raise RegistrationCancelled("stop")

    began = time.monotonic()
    images = RegisterImages.ahead((tmp_path / "a", None), (tmp_path / "b", None), [])
    with pytest.raises(RegistrationCancelled):
        images.fixed.image(stop)
    assert time.monotonic() - began < 10
    goes_on.set()

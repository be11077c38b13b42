"""Run by the peers' own interpreter: registers two files with one Python package, writes the displacement field.

    PYTHON Testing/results/peer_tools.py versions
    PYTHON Testing/results/peer_tools.py ants|greedy|convexadam FIXED MOVING FIELD

The field is an image of vectors on the fixed grid, mm LPS, fixed point -> moving point. Imports nothing of pddnet.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import tempfile
from pathlib import Path

PACKAGES = {"ants": "antspyx", "greedy": "picsl-greedy", "convexadam": "convexAdam"}


def versions() -> dict[str, str]:
    """The version of each package that is installed."""
    found = {}
    for tool, package in PACKAGES.items():
        try:
            found[tool] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue  # reported as absent
    return found


def ants(fixed: str, moving: str, field: str) -> None:
    """SyN with an affine start, its defaults (mutual information)."""
    import ants

    scans = [ants.image_read(path) for path in (fixed, moving)]
    found = ants.registration(scans[0], scans[1], type_of_transform="SyN")
    with tempfile.TemporaryDirectory() as folder:
        composite = ants.apply_transforms(
            *scans, found["fwdtransforms"], compose=str(Path(folder) / "whole-")
        )
        Path(field).write_bytes(Path(composite).read_bytes())


def greedy(fixed: str, moving: str, field: str) -> None:
    """Affine, then deformable, both by normalised cross-correlation in patches of 5^3 voxels."""
    from picsl_greedy import Greedy3D

    with tempfile.TemporaryDirectory() as folder:
        affine, warp = Path(folder) / "affine.mat", Path(folder) / "warp.nii.gz"
        images = f"-i {fixed} {moving} -m NCC 2x2x2 -n 100x50x30"
        Greedy3D().execute(f"{images} -a -dof 12 -ia-identity -o {affine}")
        Greedy3D().execute(f"{images} -it {affine} -o {warp}")
        Greedy3D().execute(f"-rf {fixed} -r {warp} {affine} -rc {field}")


def convexadam(fixed: str, moving: str, field: str) -> None:
    """Coupled convex optimisation and Adam, its defaults."""
    import numpy as np
    import SimpleITK as sitk
    import torch
    from convexAdam.convex_adam_MIND import convex_adam_pt

    scan = sitk.ReadImage(fixed)
    arrays = [sitk.GetArrayFromImage(sitk.ReadImage(path)).astype(np.float32) for path in (fixed, moving)]
    voxels = convex_adam_pt(
        *arrays, device=torch.device("cpu"), dtype=torch.float32
    )  # (D, H, W, 3) along D, H, W
    image = sitk.GetImageFromArray((voxels[..., ::-1] * scan.GetSpacing()).astype(np.float64), isVector=True)
    image.CopyInformation(scan)  # the canvas lies along LPS: voxel axes are x, y, z
    sitk.WriteImage(image, field)


if __name__ == "__main__":
    if sys.argv[1:] == ["versions"]:
        print(json.dumps(versions()))
    else:
        {"ants": ants, "greedy": greedy, "convexadam": convexadam}[sys.argv[1]](*sys.argv[2:])

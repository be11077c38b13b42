"""Run by the peers' own interpreter: registers two files with one Python package.

    PYTHON peer_packages.py versions
    PYTHON peer_packages.py ants|greedy|convexadam|elastix FIXED MOVING OUT THREADS [PARAMETERS ...]

OUT is a NIfTI image of vectors on the fixed grid, fixed point -> moving point, mm LPS (ants, greedy, elastix), or a
NumPy array (D, H, W, 3) of displacements in voxels along D, H, W (convexadam). Imports nothing of pddnet.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from pathlib import Path
from typing import Any

PACKAGES = {"ants": "antspyx", "greedy": "picsl-greedy", "convexadam": "convexAdam", "elastix": "itk-elastix"}


def versions() -> dict[str, str]:
    """The version of each package that is installed."""
    found = {}
    for tool, package in PACKAGES.items():
        try:
            found[tool] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue  # reported as absent
    return found


def ants(fixed: str, moving: str, out: str, threads: str) -> None:
    """SyN with an affine start, its defaults (mutual information); threads by the environment."""
    del threads
    import ants

    scans = [ants.image_read(path) for path in (fixed, moving)]
    prefix = str(Path(out).with_name("ants-"))
    found = ants.registration(*scans, type_of_transform="SyN", outprefix=prefix)
    composite = ants.apply_transforms(*scans, found["fwdtransforms"], compose=prefix)
    Path(composite).rename(out)


def greedy(fixed: str, moving: str, out: str, threads: str) -> None:
    """Affine, then deformable, both by normalised cross-correlation in patches of 5^3 voxels."""
    from picsl_greedy import Greedy3D

    affine, warp = Path(out).with_name("greedy.mat"), Path(out).with_name("greedy-warp.nii.gz")
    images = f"-threads {threads} -i {fixed} {moving} -m NCC 2x2x2 -n 100x50x30"
    Greedy3D().execute(f"{images} -a -dof 12 -ia-identity -o {affine}")
    Greedy3D().execute(f"{images} -it {affine} -o {warp}")
    Greedy3D().execute(f"-threads {threads} -rf {fixed} -r {warp} {affine} -rc {out}")


def convexadam(fixed: str, moving: str, out: str, threads: str) -> None:
    """Coupled convex optimisation and Adam, its defaults."""
    import nibabel
    import numpy as np
    import torch
    from convexAdam.convex_adam_MIND import convex_adam_pt

    torch.set_num_threads(int(threads))
    scans = (nibabel.load(path).get_fdata(dtype=np.float32) for path in (fixed, moving))  # (W, H, D)
    arrays = [np.ascontiguousarray(scan.T) for scan in scans]
    found = convex_adam_pt(*arrays, device=torch.device("cpu"), dtype=torch.float32)  # (D, H, W, 3)
    np.save(out, np.asarray(found, dtype=np.float32))


def elastix(fixed: str, moving: str, out: str, threads: str, *parameters: str) -> None:
    """One registration after another, as the files of parameters say."""
    import itk

    itk.set_nthreads(int(threads))
    settings = itk.ParameterObject.New()
    for file in parameters:
        settings.AddParameterFile(file)
    scans: list[Any] = [itk.imread(path, itk.F) for path in (fixed, moving)]
    _, found = itk.elastix_registration_method(
        *scans, parameter_object=settings, number_of_threads=int(threads), log_to_console=False
    )
    itk.imwrite(itk.transformix_deformation_field(scans[1], found), out)


TOOLS = {"ants": ants, "greedy": greedy, "convexadam": convexadam, "elastix": elastix}

if __name__ == "__main__":
    here = str(Path(__file__).parent)
    sys.path[:] = [path for path in sys.path if path != here]  # no module of ours stands before a package
    if sys.argv[1:] == ["versions"]:
        print(json.dumps(versions()))
    else:
        TOOLS[sys.argv[1]](*sys.argv[2:])

"""What a worker can be asked to do; this is where PyTorch comes in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import pddnet
from pddnet import devices
from pddnet.job import (
    RESULT,
    ImageFile,
    LabelsFile,
    RegisterRequest,
    Request,
    Succeeded,
    SyntheticFiles,
    SyntheticRequest,
    save_array,
)
from pddnet.process import installed_versions
from pddnet.progress import Listener, Progress
from pddnet.strict_json import to_json
from pddnet.synthetic import SyntheticPatient, synthetic_patient
from pddnet.worker_register import register_job


def run(request: Request, folder: Path, listener: Listener) -> Succeeded:
    """Do what is asked, in this folder.

    Raises:
        InputError, MemoryError: with a sentence for people.
    """
    versions = {"pddnet": pddnet.__version__, **installed_versions()}
    if isinstance(request, RegisterRequest):
        files, report = register_job(request, folder, listener)
        return Succeeded(to_json(files), {**report, "versions": versions})
    if isinstance(request, SyntheticRequest):
        patients, about = _synthetic(request, folder, listener)
        return Succeeded(to_json(patients), {**about, "versions": versions})
    return Succeeded({}, {"versions": versions, "devices": devices.available()})


def _synthetic(
    request: SyntheticRequest, folder: Path, listener: Listener
) -> tuple[SyntheticFiles, dict[str, Any]]:
    (folder / RESULT).mkdir(exist_ok=True)
    made = {}
    for share, (role, seed) in enumerate((("fixed", request.seed_fixed), ("moving", request.seed_moving))):
        listener.progressed(Progress(role, share / 2, f"making up the {role} patient"))
        made[role] = synthetic_patient(seed, request.size, request.spacing_mm)
        listener.ticked()
    files = SyntheticFiles(
        fixed=_scan(folder, "fixed", made["fixed"]),
        moving=_scan(folder, "moving", made["moving"]),
        fixed_labels=_labels(folder, "fixed-labels", made["fixed"]),
        moving_labels=_labels(folder, "moving-labels", made["moving"]),
    )
    return files, {role: dict(patient.parameters) for role, patient in made.items()}


def _scan(folder: Path, name: str, patient: SyntheticPatient) -> ImageFile:
    voxels = patient.ct.data.numpy().astype(np.int16)  # whole Hounsfield units, -1024 to 3071
    return save_array(folder, f"{RESULT}/{name}.npy", voxels, patient.ct.geometry)


def _labels(folder: Path, name: str, patient: SyntheticPatient) -> LabelsFile:
    labels = patient.labels
    image = save_array(folder, f"{RESULT}/{name}.npy", labels.data.numpy().astype(np.uint8), labels.geometry)
    return LabelsFile(image.array, image.geometry, {str(n): text for n, text in labels.names.items()})

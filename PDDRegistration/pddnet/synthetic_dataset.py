"""A data set of synthetic patients in files: scans, label maps of nine organs, and the JSON file that names them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pddnet.errors import InputError, RegistrationCancelled
from pddnet.interop.files import replacing_folder
from pddnet.interop.simpleitk import write_label_map, write_volume
from pddnet.progress import Progress
from pddnet.strict_json import to_json
from pddnet.synthetic import ORGAN_NAMES, synthetic_patient

DATASET, PATIENTS = "dataset.json", "patients.json"
FIRST_SEED = 100  # the demonstration's and the ablation's patients are not among them
_LICENCE = "synthetic: nobody was scanned"


def write_synthetic_dataset(
    out: Path,
    cases: int = 10,
    *,
    size: tuple[int, int, int] = (128, 108, 150),
    spacing_mm: float = 3.0,
    seed: int = FIRST_SEED,
    on_progress: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Make up patients and write them into the folder `out`, all or none.

    `dataset.json` names them for `pddnet benchmark` and `pddnet train`; `patients.json` says how each was made.

    Args:
        cases: how many patients, at least two.
        size, spacing_mm: of every scan, voxels (x, y, z) and mm.
        seed: of the first patient; each next one has the next.

    Returns:
        What `dataset.json` holds.

    Raises:
        InputError: fewer than two cases, or `out` cannot be written into.
        RegistrationCancelled: `cancelled` said so; nothing was written.
    """
    if cases < 2:
        raise InputError(f"cases is {cases}; a registration needs two scans: ask for 2 or more")
    entries, made = [], {}
    with replacing_folder(out) as folder:
        for number in range(cases):
            if cancelled():
                raise RegistrationCancelled("cancelled; nothing was written")
            name = f"patient-{seed + number:03}"
            if on_progress is not None:
                on_progress(Progress(name, number / cases, f"making {name} ({number + 1} of {cases})"))
            patient = synthetic_patient(seed + number, size, spacing_mm)
            entry = {"name": name, "image": f"{name}-ct.nii.gz", "labels": f"{name}-organs.nii.gz"}
            write_volume(folder / entry["image"], patient.ct)
            write_label_map(folder / entry["labels"], patient.labels)
            entries.append(entry)
            made[name] = to_json(patient.parameters)
        dataset = {
            "name": "synthetic abdomen",
            "modality": "CT",
            "licence": _LICENCE,
            "labels": {str(code): name for code, name in ORGAN_NAMES.items()},
            "cases": entries,
        }
        for file, content in ((DATASET, dataset), (PATIENTS, made)):
            (folder / file).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if on_progress is not None:
        on_progress(Progress("done", 1.0, "done"))
    return dataset

"""The built-in example: two synthetic patients, registered, with everything a registration leaves behind."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pddnet.errors import RegistrationCancelled
from pddnet.figure import registration_figure
from pddnet.interop.files import check_output_folder, replacing_folder
from pddnet.interop.simpleitk import read_label_map, read_volume, write_label_map, write_volume
from pddnet.metrics import dice
from pddnet.outputs import Report, write_result
from pddnet.progress import Progress
from pddnet.registration import RegistrationResult, register
from pddnet.strict_json import to_json
from pddnet.synthetic import SyntheticPatient, synthetic_patient
from pddnet.volume import LabelMap

_SHARE_BEFORE, _SHARE_OF_REGISTRATION = 0.05, 0.85
_CAPTION = (
    "Synthetic patients (nobody was scanned): {moving} onto {fixed}, mean Dice {before:.2f} to {after:.2f}"
)


@dataclass(frozen=True)
class _Stages:
    """Progress of the whole demonstration, of which the registration is a part."""

    on_progress: Callable[[Progress], None] | None
    cancelled: Callable[[], bool] | None

    def tell(self, stage: str, fraction: float, message: str) -> None:
        if self.cancelled is not None and self.cancelled():
            raise RegistrationCancelled("the demonstration was cancelled; nothing was written")
        if self.on_progress is not None:
            self.on_progress(Progress(stage, fraction, message))

    def tell_of_registration(self, progress: Progress) -> None:
        if progress.stage != "done":
            fraction = _SHARE_BEFORE + _SHARE_OF_REGISTRATION * progress.fraction
            self.tell(progress.stage, fraction, progress.message)


def run_demo(
    out: Path,
    *,
    preset: str | Path = "abdomen-ct",
    device: str = "auto",
    seeds: tuple[int, int] = (6, 5),
    size: tuple[int, int, int] = (120, 100, 140),
    spacing_mm: float = 3.0,
    on_progress: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Report:
    """Make two synthetic patients, register one onto the other, and write it all into the folder `out`.

    Besides what `write_result` writes: both scans and their labels, `figure.png` if matplotlib is installed, and
    in `report.json` the Dice of each organ before and after.

    Args:
        out: the folder; made if it does not exist, and left as it was if anything fails.
        preset, device: as for `register`.
        seeds: of the fixed and the moving patient.
        size, spacing_mm: of both scans, voxels (x, y, z) and mm.
        on_progress: told about each stage.
        cancelled: asked between pieces of work.

    Returns:
        What `report.json` holds; `summary` puts it into words.

    Raises:
        InputError: `out` cannot be written into, or there is no such preset or device.
        RegistrationCancelled: `cancelled` said so; nothing was written.
    """
    began = time.perf_counter()
    check_output_folder(out)
    stages = _Stages(on_progress, cancelled)
    stages.tell("patients", 0.0, "making two synthetic patients")
    fixed, moving = (synthetic_patient(seed, size, spacing_mm) for seed in seeds)
    result = register(
        fixed.ct,
        moving.ct,
        preset=preset,
        device=device,
        on_progress=stages.tell_of_registration,
        cancelled=cancelled,
    )
    stages.tell("write", _SHARE_BEFORE + _SHARE_OF_REGISTRATION, "writing the results")
    with replacing_folder(out) as folder:
        report = write_result(
            result,
            fixed.ct,
            moving.ct,
            folder,
            labels={"organs": moving.labels},
            inverse=True,
            cancelled=cancelled or _never,
        )
        _write_patients(folder, fixed, moving)
        report |= _scores(fixed.labels, moving.labels, result.displacement.warp(moving.labels))
        report["synthetic"] = {"fixed": dict(fixed.parameters), "moving": dict(moving.parameters)}
        stages.tell("figure", 0.95, "drawing the figure")
        report["figure"] = _figure(folder, fixed, moving, result, report)
        report["files"] = sorted(path.name for path in folder.iterdir())
        report["demo_seconds"] = time.perf_counter() - began
        report = dict(to_json(report))
        text = json.dumps(report, indent=2, allow_nan=False)
        (folder / "report.json").write_text(text + "\n", encoding="utf-8")
        stages.tell("done", 1.0, "done")
    return report


def summary(report: Report, out: Path) -> str:
    """A demonstration's report as a table for people."""
    before, after = report["dice_before"], report["dice_after"]
    width = max(len(name) for name in before)
    rows = [f"{name:{width}}  {before[name]:6.2f}  {after[name]:6.2f}" for name in before]
    mean = f"{'mean':{width}}  {report['mean_dice_before']:6.2f}  {report['mean_dice_after']:6.2f}"
    missing = [] if report["figure"] else ['no figure.png: it needs matplotlib (pip install "pddnet[demo]")']
    return "\n".join(
        [
            f"{'Dice':{width}}  before   after",
            *rows,
            mean,
            f"folding {report['folding_percent']:.3f} %, registered in {report['seconds']:.1f} s "
            f"with {report['preset']} on {report['device']}",
            *missing,
            f"two synthetic patients (nobody was scanned); the results are in {out}",
        ]
    )


def _write_patients(folder: Path, fixed: SyntheticPatient, moving: SyntheticPatient) -> None:
    for name, patient in (("fixed", fixed), ("moving", moving)):
        write_volume(folder / f"{name}.nii.gz", patient.ct)
        write_label_map(folder / f"{name}-labels.nii.gz", patient.labels)


def _scores(fixed: LabelMap, moving: LabelMap, warped: LabelMap) -> Report:
    before, after = dice(fixed, moving), dice(fixed, warped)
    return {
        "dice_before": {fixed.name(label): before[label] for label in before},
        "dice_after": {fixed.name(label): after.get(label, 0.0) for label in before},
        "mean_dice_before": sum(before.values()) / len(before),
        "mean_dice_after": sum(after.get(label, 0.0) for label in before) / len(before),
    }


def _figure(
    folder: Path,
    fixed: SyntheticPatient,
    moving: SyntheticPatient,
    result: RegistrationResult,
    report: Report,
) -> str | None:
    """The figure's file name, or None where matplotlib is missing."""
    caption = _CAPTION.format(
        fixed=fixed.parameters["seed"],
        moving=moving.parameters["seed"],
        before=report["mean_dice_before"],
        after=report["mean_dice_after"],
    )
    try:
        registration_figure(
            fixed.ct,
            moving.ct,
            read_volume(folder / "warped.nii.gz"),
            result.displacement,
            read_volume(folder / "jacobian.nii.gz"),
            result.uncertainty.std_mm,
            folder / "figure.png",
            fixed.labels,
            read_label_map(folder / "warped-labels.nii.gz", moving.labels.names),
            caption,
        )
    except ImportError:  # an optional extra; `summary` says that it is missing
        return None
    return "figure.png"


def _never() -> bool:
    return False

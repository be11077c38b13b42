"""What tests of the worker share: tiny scans, requests for them, and a worker that is listened to."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pddnet import job
from pddnet.geometry import ImageGeometry
from pddnet.synthetic import SyntheticPatient, synthetic_patient
from pddnet.volume import LabelMap, Volume
from pddnet.warp import DisplacementField

BACKEND = Path(__file__).resolve().parents[2] / "PDDRegistration"
QUICK = job.Options(preset="fast", levels=2, global_stage=False, device="cpu")


def patient(
    seed: int, size: tuple[int, int, int] = (24, 22, 20), spacing_mm: float = 3.0
) -> SyntheticPatient:
    """The middle of a made-up patient."""
    return synthetic_patient(seed, size, spacing_mm)


def save_scan(folder: Path, name: str, scan: Volume, dtype: Any = np.int16) -> job.ImageFile:
    return job.save_array(folder, f"{name}.npy", scan.data.numpy().astype(dtype), scan.geometry)


def save_labels(folder: Path, name: str, labels: LabelMap, dtype: Any = np.uint8) -> job.ImageFile:
    return job.save_array(folder, f"{name}.npy", labels.data.numpy().astype(dtype), labels.geometry)


def save_transform(folder: Path, name: str, field: DisplacementField) -> job.FieldFile:
    return job.save_field(folder, f"{name}.npy", field.vectors.numpy(), field.geometry)


def organs(labels: job.ImageFile, names: LabelMap, name: str = "Organs") -> job.Segmentation:
    """A segmentation of one layer with all labels that are there."""
    segments = tuple(job.Segment(f"id{n}", names.name(n), 0, n) for n in names.labels)
    return job.Segmentation(name, (labels,), segments)


@dataclass
class Ran:
    """A worker that has ended."""

    events: list[job.Event]
    code: int
    stderr: str

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def failed(self) -> job.Failed:
        assert isinstance(self.events[-1], job.Failed), self.events[-1]
        return self.events[-1]

    @property
    def succeeded(self) -> job.Succeeded:
        assert isinstance(self.events[-1], job.Succeeded), (self.events[-1], self.stderr)
        return self.events[-1]


def environment(*first: Path, **more: str) -> dict[str, str]:
    """The environment of a worker that computes as this process does; `first` are looked into before the backend."""
    path = os.pathsep.join(map(str, (*first, BACKEND)))
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": str(torch.get_num_threads())} | more


def start(folder: Path, *options: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """A worker with its three standard streams as pipes."""
    return subprocess.Popen(
        [sys.executable, "-m", "pddnet.worker", str(folder), *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env or environment(),
    )


def listened_to(process: subprocess.Popen[str]) -> Ran:
    """Wait for the end with standard input open."""
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    said: list[str] = []
    drain = threading.Thread(target=lambda: said.append(process.stderr.read()))  # type: ignore[union-attr]
    drain.start()
    events = [job.parse_event(line) for line in process.stdout]
    code = process.wait(timeout=60)
    drain.join()
    for stream in (process.stdin, process.stdout, process.stderr):
        stream.close()
    return Ran(events, code, said[0])


def ask(folder: Path, request: job.Request, *options: str, env: dict[str, str] | None = None) -> Ran:
    """Write the request, run a worker, wait for its end."""
    job.write_request(folder, request)
    return listened_to(start(folder, *options, env=env))


def ended_within(process: subprocess.Popen[str], seconds: float) -> int:
    """The exit code, if the process ends in time; its streams are closed."""
    began = time.perf_counter()
    code = process.wait(timeout=30)
    taken = time.perf_counter() - began
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    assert taken < seconds, f"it took {taken:.2f} s"
    return code


def field_of(folder: Path, file: job.FieldFile | None) -> DisplacementField:
    assert file is not None
    return DisplacementField(torch.from_numpy(job.load_array(folder, file, "field")), file.geometry)


def wave(geometry: ImageGeometry, mm: float, length_mm: float = 60.0) -> DisplacementField:
    """A smooth displacement on a grid: a shift and a wave of `mm` each."""
    points = torch.as_tensor(
        geometry.to_lps(np.moveaxis(np.indices(geometry.size), 0, -1).transpose(2, 1, 0, 3))
    )
    phase = 2 * torch.pi * points / length_mm
    vectors = mm * (torch.tensor([0.8, -0.5, 0.4]) + 0.4 * torch.sin(phase.roll(1, -1)))
    return DisplacementField(vectors.float(), geometry)

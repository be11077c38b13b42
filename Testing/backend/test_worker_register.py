"""What the worker does when a GPU is too small, and what it says of segments that are not there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from backend.asking import QUICK, organs, patient, save_labels, save_scan
from pddnet import job, registration, worker_register
from pddnet.errors import InsufficientMemoryError
from pddnet.progress import Progress
from pddnet.worker_register import register_job


class Heard:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.progress: list[Progress] = []
        self.logs: list[tuple[str, str]] = []
        self.ticks = 0

    def progressed(self, progress: Progress) -> None:
        self.progress.append(progress)

    def logged(self, level: Literal["info", "warning"], message: str) -> None:
        self.logs.append((level, message))

    def ticked(self) -> None:
        self.ticks += 1


@pytest.fixture
def request_(tmp_path: Path) -> job.RegisterRequest:
    a, b = patient(6), patient(5)
    return job.RegisterRequest(
        save_scan(tmp_path, "fixed", a.ct), save_scan(tmp_path, "moving", b.ct), options=QUICK
    )


def failing_once(monkeypatch: pytest.MonkeyPatch, error: Exception, device: str = "cpu") -> list[str]:
    """The first registration raises; returns the devices that were tried."""
    real, tried = registration.register, []

    def register(*arguments: Any, **options: Any) -> Any:
        tried.append(options["device"])
        if len(tried) == 1:
            raise error
        return real(*arguments, **options)

    monkeypatch.setattr(registration, "register", register)
    monkeypatch.setattr(worker_register, "resolve_device", lambda _: torch.device(device))
    return tried


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"),
        InsufficientMemoryError("needs 9000 MB and 10 MB are free"),
        RuntimeError("CUBLAS_STATUS_ALLOC_FAILED"),
    ],
)
def test_a_gpu_that_is_too_small_hands_over_to_the_cpu_and_that_is_said(
    tmp_path: Path, request_: job.RegisterRequest, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    tried, heard = failing_once(monkeypatch, error, "cuda:0"), Heard()
    _, report = register_job(request_, tmp_path, heard)
    assert tried == ["cuda:0", "cpu"]
    assert report["device"] == "cpu"
    assert heard.logs == [("warning", report["fallback"])]
    assert str(error) in report["fallback"]
    assert report["fallback"].endswith("continuing on the CPU")
    assert heard.ticks > 10


@pytest.mark.parametrize(
    ("error", "device", "limit"),
    [
        (MemoryError("no"), "cpu", None),
        (RuntimeError("CUDA error: launch failure"), "cuda:0", None),
        (InsufficientMemoryError("limit"), "cuda:0", 100.0),
    ],
)
def test_other_failures_are_not_tried_again(
    tmp_path: Path,
    request_: job.RegisterRequest,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    device: str,
    limit: float | None,
) -> None:
    tried = failing_once(monkeypatch, error, device)
    asked = replace(request_, options=replace(QUICK, memory_limit_mb=limit))
    with pytest.raises(type(error)):
        register_job(asked, tmp_path, Heard())
    assert tried == [device]


def test_segments_that_are_empty_or_have_no_counterpart_say_so(
    tmp_path: Path, request_: job.RegisterRequest
) -> None:
    a, b = patient(6), patient(5)
    mine = organs(save_labels(tmp_path, "moving-labels", b.labels), b.labels)
    nowhere = job.Segment("x", "nowhere", 0, 99)
    theirs = organs(save_labels(tmp_path, "fixed-labels", a.labels), a.labels)
    shared = next(s.name for s in theirs.segments if s.name in {m.name for m in mine.segments})
    only = replace(theirs, segments=tuple(s for s in theirs.segments if s.name == shared))
    asked = replace(
        request_,
        segmentations=(replace(mine, segments=(*mine.segments, nowhere)), replace(mine, name="Again")),
        fixed_segmentation=only,
    )
    files, report = register_job(asked, tmp_path, Heard())
    rows = report["segments"]
    assert [row["segmentation"] for row in rows] == ["Organs"] * (len(mine.segments) + 1) + ["Again"] * len(
        mine.segments
    )
    by_name = {row["name"]: row for row in rows if row["segmentation"] == "Organs"}
    assert by_name["nowhere"]["volume_ml"] == 0
    assert by_name["nowhere"]["displacement_mean_mm"] is None
    assert by_name[shared]["dice_after"] is not None
    assert all(row["dice_after"] is None for name, row in by_name.items() if name != shared)
    layers = [job.load_array(tmp_path, s.layers[0], "layer") for s in files.segmentations]
    np.testing.assert_array_equal(layers[0], layers[1])


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32, np.float64, bool])
def test_the_warped_scan_has_the_type_the_moving_one_had(
    tmp_path: Path, request_: job.RegisterRequest, dtype: type
) -> None:
    scan = patient(5).ct
    values = (scan.data - scan.data.min()) / 20
    kept = replace(scan, data=(values > values.median()).float() if dtype is bool else values)
    files, _ = register_job(
        replace(request_, moving=save_scan(tmp_path, "typed", kept, dtype)), tmp_path, Heard()
    )
    warped = job.load_array(tmp_path, files.warped, "warped")
    assert warped.dtype == dtype
    assert len(np.unique(warped)) > 1
    assert warped.max() <= values.max() + 1

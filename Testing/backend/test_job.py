"""What a program asks of its worker: requests, events and arrays, checked on the way in."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pddnet import job
from pddnet.errors import InputError
from pddnet.geometry import ImageGeometry

EYE = ((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 1.0))


def full_request(folder: Path, geometry: ImageGeometry) -> job.RegisterRequest:
    """A request with something in every place."""
    image = job.save_array(folder, "scan.npy", np.zeros(geometry.shape, np.int16), geometry)
    field = job.save_field(folder, "field.npy", np.zeros((*geometry.shape, 3)), geometry)
    affine = job.AffineFile(EYE)
    segments = (job.Segment("s1", "liver", 0, 3),)
    organs = job.Segmentation("Organs", (image,), segments, field)
    points = ((1.0, 2.0, 3.0), (4.0, 5.0, 6.5))
    return job.RegisterRequest(
        image,
        image,
        image,
        None,
        job.Parents(field, affine, None, None),
        affine,
        (organs, organs),
        organs,
        job.Landmarks(points, points),
        job.Options(preset="fast", levels=2, global_stage=False, smoothness=2, memory_limit_mb=1e4),
    )


@pytest.fixture
def table(tmp_path: Path, oblique_geometry: ImageGeometry) -> dict[str, Any]:
    """`full_request` as its file says it; the folder holds the file."""
    job.write_request(tmp_path, full_request(tmp_path, oblique_geometry))
    table: dict[str, Any] = json.loads((tmp_path / "request.json").read_text("utf-8"))
    return table


def test_a_request_comes_back_as_it_was_written(tmp_path: Path, oblique_geometry: ImageGeometry) -> None:
    requests = [
        full_request(tmp_path, oblique_geometry),
        replace(full_request(tmp_path, oblique_geometry), initial_transform="centres", landmarks=None),
        job.DescribeRequest(),
        job.SyntheticRequest(1, 2, (8, 9, 10), 4.5),
    ]
    for request in requests:
        job.write_request(tmp_path, request)
        assert job.read_request(tmp_path) == request


def test_what_may_be_left_out_may_be_left_out(tmp_path: Path, table: dict[str, Any]) -> None:
    short = {key: table[key] for key in ("command", "fixed", "moving")}
    (tmp_path / "request.json").write_text(json.dumps(short), "utf-8")
    request = job.read_request(tmp_path)
    assert isinstance(request, job.RegisterRequest)
    assert request.options == job.Options()
    assert request.parents == job.Parents()
    assert request.initial_transform is None


WRONG: list[tuple[list[Any], Any, str]] = [
    (["command"], "paint", "command 'paint'; choose one of register, describe, synthetic"),
    (["option"], {}, "unknown entry option"),
    (["fixed"], None, "the request.fixed is None; a table"),
    (["fixed", "array"], 3, "fixed.array is 3; text"),
    (["fixed", "geometry", "size"], [7, 9], "fixed.geometry.size has 2 entries; 3"),
    (["fixed", "geometry", "size", 0], 7.5, "size\\[0\\] is 7.5; a whole number"),
    (["fixed", "geometry", "spacing", 1], "thick", "spacing\\[1\\] is 'thick'; a number"),
    (["fixed", "geometry", "spacing", 1], -1.0, "the request.fixed.geometry: spacing is .* positive"),
    (["initial_transform"], "centers", "initial_transform is 'centers'; one of centres"),
    (["initial_transform", "kind"], "spline", "of kind 'spline'; it must be one of affine, field"),
    (["initial_transform", "matrix", 0], [1, 0, 0], "matrix\\[0\\] has 3 entries; 4"),
    (["parents", "world_to_fixed"], None, "fixed_to_world and world_to_fixed are needed together"),
    (["segmentations", 0, "segments", 0, "layer"], 1, "segment 'liver' is in layer 1; there are 1 layers"),
    (["segmentations", 0, "segments", 0, "value"], True, "value is True; a whole number"),
    (["landmarks", "moving"], [[1, 2, 3]], "2 fixed and 1 moving landmarks; equally many"),
    (["options", "levels"], "two", "options.levels is 'two'; a whole number"),
    (["options", "inverse"], 1, "options.inverse is 1; true or false"),
    (["options", "smoothness"], math.nan, "smoothness is nan; a finite number"),
    (["options", "smoothnes"], 1.0, "options has the unknown entry smoothnes"),
]


@pytest.mark.parametrize(("where", "value", "message"), WRONG)
def test_a_wrong_entry_is_refused_with_its_place_and_what_is_needed(
    tmp_path: Path, table: dict[str, Any], where: list[Any], value: Any, message: str
) -> None:
    inner: Any = table
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = value
    (tmp_path / "request.json").write_text(json.dumps(table), "utf-8")
    with pytest.raises(InputError, match=message):
        job.read_request(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"fixed": 1}'])
def test_what_is_no_request_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "request.json").write_text(text, "utf-8")
    with pytest.raises(InputError, match=r"cannot be read|has the command None"):
        job.read_request(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        job.read_request(tmp_path / "elsewhere")


def test_arrays_come_back_in_their_own_type(tmp_path: Path, oblique_geometry: ImageGeometry) -> None:
    values = np.arange(np.prod(oblique_geometry.shape)).reshape(oblique_geometry.shape)
    for kind in (np.uint8, np.int16, np.uint16, np.float32, np.float64):
        image = job.save_array(tmp_path, "a.npy", values.astype(kind)[:, ::-1], oblique_geometry)
        back = job.load_array(tmp_path, image, "the scan")
        assert back.dtype == kind
        np.testing.assert_array_equal(back, values.astype(kind)[:, ::-1])


def test_an_array_that_cannot_be_used_is_refused(tmp_path: Path, oblique_geometry: ImageGeometry) -> None:
    image = job.save_array(tmp_path, "a.npy", np.zeros(oblique_geometry.shape), oblique_geometry)

    def load(name: str) -> None:
        job.load_array(tmp_path, replace(image, array=name), "the fixed scan")

    np.save(tmp_path / "b.npy", np.zeros((2, 3, 4)))
    np.save(tmp_path / "c.npy", np.full(oblique_geometry.shape, 1j))
    np.save(tmp_path / "d.npy", np.array([{}] * 3), allow_pickle=True)
    (tmp_path / "e.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-9])
    for name, message in [
        ("b.npy", r"the fixed scan has shape \(2, 3, 4\); its geometry needs \(11, 9, 7\)"),
        ("c.npy", "voxels of type complex128"),
        ("d.npy", "d.npy cannot be read"),
        ("e.npy", "e.npy cannot be read"),
        ("f.npy", "f.npy cannot be read"),
        ("../a.npy", "inside the request's folder"),
        ("/a.npy", "inside the request's folder"),
        ("C:\\a.npy", "inside the request's folder"),
        ("a.txt", r"a \.npy file"),
    ]:
        with pytest.raises(InputError, match=message):
            load(name)
    field = job.FieldFile("a.npy", oblique_geometry)
    with pytest.raises(InputError, match=r"needs \(11, 9, 7, 3\)"):
        job.load_array(tmp_path, field, "the field")


EVENTS: list[job.Event] = [
    job.Started(12, {"python": "3.12"}),
    job.Progressed("level 1", 0.25, "level 1 of 8"),
    job.Logged("warning", "the GPU's memory was not enough\nsecond line"),
    job.Alive(117),
    job.Succeeded(
        {"warped": {"array": "result/warped.npy"}}, {"seconds": 1.5, "segments": [{"name": "Läber"}]}
    ),
    job.Failed("memory", "close other programs", "Traceback"),
]


@pytest.mark.parametrize("event", EVENTS, ids=[event.event for event in EVENTS])
def test_an_event_is_one_line_and_comes_back(event: job.Event) -> None:
    line = job.event_line(event)
    assert line.index("\n") == len(line) - 1
    assert job.parse_event(line) == event


def test_numbers_that_are_not_finite_leave_as_null() -> None:
    line = job.event_line(job.Succeeded({}, {"hd95": math.inf, "list": [math.nan, 1.0]}))
    assert json.loads(line)["report"] == {"hd95": None, "list": [None, 1.0]}


@pytest.mark.parametrize("line", ["", "hello", "[1]", '{"event": "tea"}', '{"event": "alive"}'])
def test_a_line_that_is_no_event_is_refused(line: str) -> None:
    with pytest.raises(InputError, match=r"no event|lacks ticks"):
        job.parse_event(line)


def test_the_hash_is_of_the_files_bytes(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert job.sha256(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_asking_needs_neither_torch_nor_simpleitk(root: Path) -> None:
    code = (
        "import json, sys, pddnet.job, pddnet.estimate, pddnet.memory; print(json.dumps(list(sys.modules)))"
    )
    environment = os.environ | {"PYTHONPATH": str(root / "PDDRegistration")}
    command = [sys.executable, "-c", code]
    said = subprocess.run(command, env=environment, check=True, capture_output=True, timeout=60)
    assert {"torch", "SimpleITK"}.isdisjoint(json.loads(said.stdout))

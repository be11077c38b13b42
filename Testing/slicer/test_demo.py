"""`make demo`: everything at once or nothing, and a bundle that opens as it was saved."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import slicer

from desktop import demo_run, views
from desktop.demo import BAD_INPUT, CANCELLED, OK, main
from desktop.demo_run import Demonstration, runDemo
from desktop.gallery import PICTURES, VIEWS_SIZE, clicked
from desktop.panel import openPanel
from desktop.pictures import difference, readPng
from desktop.views import LayoutManager
from pddnet.errors import InputError, RegistrationCancelled
from pddnet.job import SyntheticRequest
from PDDRegistrationLib import RegistrationLogic
from PDDRegistrationLib.mrml_conversion import interpolateLinearly
from PDDRegistrationLib.output_nodes import PROVENANCE, TRANSFORM_ROLE, allNodes
from PDDRegistrationLib.parameters import RegistrationParameters
from PDDRegistrationLib.settings import RegistrationSettings
from tiny_preset import PRESET

SCRIPT = Path(demo_run.__file__).with_name("demo.py")
PAIR = SyntheticRequest(size=(48, 40, 56), spacing_mm=7.5)
FILES = {
    *(f"view-{name}.png" for name in PICTURES),
    *(f"{name}.nii.gz" for name in ("fixed", "moving", "warped", "jacobian", "uncertainty")),
    *(f"{name}-organs.seg.nrrd" for name in ("fixed", "moving", "warped")),
    *("panel.png", "scene.png", "scene.mrb", "transform.h5", "quality.csv", "report.json"),
}

pytestmark = pytest.mark.skipif(bool(views.missing()), reason=views.missing())


def command(settings, out):
    return [
        *(sys.executable, str(SCRIPT), "--out", str(out), "--preset", settings.preset, "--device", "cpu"),
        *("--size", *map(str, PAIR.size), "--spacing-mm", str(PAIR.spacing_mm)),
    ]


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    preset = tmp_path_factory.mktemp("preset") / "small.toml"
    preset.write_text(PRESET, encoding="utf-8")
    return RegistrationSettings(preset=str(preset), device="cpu", inverse=True)


@pytest.fixture(scope="module")
def done(settings, tmp_path_factory):
    """The finished command: the report, its folder, and what it printed."""
    out = tmp_path_factory.mktemp("demo") / "new" / "results"
    run = subprocess.run(command(settings, out), capture_output=True, text=True, timeout=300)
    assert run.returncode == OK, run.stderr
    return json.loads((out / "report.json").read_text("utf-8")), out, run


@pytest.fixture
def loaded(done, scene):
    """The bundle in a fresh scene with views, as in an application that has just started."""
    manager = LayoutManager(scene, VIEWS_SIZE)
    slicer.app.setLayoutManager(manager)
    assert scene.ReadFromMRB(str(done[1] / "scene.mrb"), True)
    yield RegistrationParameters.all(scene)[0]
    manager.close()


def go_on():
    pass


def test_it_leaves_the_scene_pictures_table_images_and_transform(done):
    report, out, _ = done
    assert {path.name for path in out.iterdir()} == FILES == set(report["files"])
    rows = list(csv.reader((out / "quality.csv").read_text("utf-8-sig").splitlines()))
    assert len(rows) == 2 + len(report["segments"])


def test_the_organs_agree_better_afterwards_and_the_table_printed_says_so(done):
    report, out, run = done
    assert report["mean_dice_after"] > report["mean_dice_before"] + 0.1
    lines = run.stdout.splitlines()
    assert lines[1].startswith("liver")
    assert lines[1].endswith(f"{report['dice_after']['liver']:.2f}")
    assert any(str(out) in line and "nobody was scanned" in line for line in lines)


def test_the_progress_runs_once_from_beginning_to_end(done):
    percents = [int(line.split("%")[0]) for line in done[2].stderr.splitlines()]
    assert percents == sorted(percents)
    assert percents[-1] == 100
    assert "drawing panel" in done[2].stderr


def test_every_picture_shows_something_else(done):
    images = {name: readPng(done[1] / f"view-{name}.png")[::4, ::4] for name in PICTURES}
    for name, image in images.items():
        assert image.std() > 20
        for other in images:
            assert other == name or difference(image, images[other])[0] > 0.5, (name, other)


def test_the_files_agree_with_each_other(done):
    """The moving scan through the transform file is the warped scan, in SimpleITK."""
    out = done[1]
    fixed, moving, warped = (
        sitk.ReadImage(str(out / f"{name}.nii.gz")) for name in ("fixed", "moving", "warped")
    )
    air = float(sitk.GetArrayFromImage(moving).min())
    for transform, agrees in (
        (sitk.ReadTransform(str(out / "transform.h5")), True),
        (sitk.Transform(), False),
    ):
        again = sitk.Resample(moving, fixed, transform, sitk.sitkLinear, air, sitk.sitkFloat64)
        apart = np.abs(sitk.GetArrayFromImage(again) - sitk.GetArrayFromImage(warped))[1:-1, 1:-1, 1:-1]
        assert (apart.max() < 0.6) == agrees  # rounded to whole HU


def test_the_bundle_holds_all_nodes_with_their_references_in_one_folder(loaded):
    scene, result = slicer.mrmlScene, loaded.result()
    assert loaded.fixed.GetName() == "Synthetic A"
    assert loaded.inputs().segmentations[0].GetName() == "Synthetic B organs"
    assert len(allNodes(result)) == 7
    transform = result.transform
    assert transform.GetNodeReference("spatialRegistrationFixed") is loaded.fixed
    assert transform.GetNodeReference("spatialRegistrationMoving") is loaded.moving
    assert json.loads(transform.GetAttribute(PROVENANCE))["fixed"] == "Synthetic A"
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    folders = {hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) for node in allNodes(result)}
    assert [hierarchy.GetItemName(item) for item in folders] == ["Registration of Synthetic B to Synthetic A"]
    for node in allNodes(result):
        assert node is transform or node.GetNodeReference(TRANSFORM_ROLE) is transform


def test_the_loaded_transform_is_the_one_in_the_file(loaded, done):
    itk = sitk.ReadTransform(str(done[1] / "transform.h5"))
    interpolateLinearly(loaded.result().transform)  # Slicer reads every grid transform as a cubic one
    general = loaded.result().transform.GetTransformFromParent()
    for ras in np.random.default_rng(0).uniform(-80, 80, (50, 3)):
        lps = itk.TransformPoint((ras * (-1, -1, 1)).tolist())
        assert np.allclose(general.TransformPoint(ras), np.array(lps) * (-1, -1, 1), atol=1e-3)


def test_the_loaded_scene_looks_as_it_was_saved(loaded, done):
    now = slicer.app.layoutManager().layoutImage()
    mean, changed = difference(now, readPng(done[1] / "scene.png"))
    assert (mean, changed) < (0.5, 0.005)
    loaded.fixed.GetDisplayNode().SetVisibility(False)
    slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode().JumpSliceByOffsetting(0, 0, 20)
    assert difference(slicer.app.layoutManager().layoutImage(), now)[0] > 0.5  # the comparison can fail


def test_the_panel_shows_the_loaded_result_as_before(loaded, done):
    loaded.result().warpedSegmentations[0].GetDisplayNode().SetVisibility2D(False)  # as when they were drawn
    with openPanel(slicer.mrmlScene, RegistrationLogic(slicer.mrmlScene)) as panel:
        assert panel.result.report["segments"] == done[0]["segments"]
        for name, buttons in PICTURES.items():
            with clicked(panel, buttons):
                image = slicer.app.layoutManager().layoutImage()
            assert difference(image, readPng(done[1] / f"view-{name}.png"))[1] < 0.02, name


@pytest.mark.parametrize("stage", ["level 1", "write"])
def test_ended_at_any_stage_it_leaves_nothing(settings, tmp_path, stage):
    stages = []

    def check():
        if stage in stages:
            raise RegistrationCancelled("enough")

    out = tmp_path / "new" / "results"
    with pytest.raises(RegistrationCancelled):
        runDemo(out, settings, PAIR, lambda progress: stages.append(progress.stage), check)
    assert stage in stages
    assert list(tmp_path.iterdir()) == []


def test_a_failure_at_the_end_leaves_the_earlier_results_as_they_were(settings, tmp_path, monkeypatch):
    def fail(*_arguments):
        raise OSError("No space left on device")

    (tmp_path / "report.json").write_text("mine")
    monkeypatch.setattr(Demonstration, "draw", lambda _self, folder, _outputs: (folder / "panel.png").touch())
    monkeypatch.setattr(demo_run, "writeCsv", fail)
    with pytest.raises(OSError, match="No space"):
        runDemo(tmp_path, settings, PAIR, ignore, go_on)
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
    assert (tmp_path / "report.json").read_text() == "mine"


def test_a_folder_it_cannot_use_is_refused_before_any_work(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(Demonstration, "addPair", lambda _self: pytest.fail("work began"))
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"):
        runDemo(tmp_path / "file", settings, PAIR, ignore, go_on)


def test_without_a_way_to_draw_it_says_what_to_install_before_any_work(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(Demonstration, "addPair", lambda _self: pytest.fail("work began"))
    monkeypatch.setattr(views, "_missing", "EGL cannot draw here (install libegl1)")
    with pytest.raises(InputError, match="install libegl1"):
        runDemo(tmp_path, settings, PAIR, ignore, go_on)


def test_ctrl_c_ends_it_and_leaves_no_file_and_no_process(settings, tmp_path):
    environment = os.environ | {"TMPDIR": str(tmp_path / "temporary")}
    (tmp_path / "temporary").mkdir()
    with subprocess.Popen(
        command(settings, tmp_path / "new" / "out"), stderr=subprocess.PIPE, text=True, env=environment
    ) as run:
        assert any("level 1" in line for line in run.stderr)
        run.send_signal(signal.SIGINT)
        began = time.monotonic()
        rest = run.stderr.read()
    assert run.returncode == CANCELLED, rest
    assert "cancelled; nothing was written" in rest
    assert time.monotonic() - began < 10
    assert [path.name for path in tmp_path.iterdir()] == ["temporary"]
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_preset_that_is_not_there_is_told_in_a_sentence(settings, tmp_path, capsys):
    wrong = RegistrationSettings(preset=settings.preset + "x")
    assert main(command(wrong, tmp_path / "out")[2:]) == BAD_INPUT
    assert "small.tomlx" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def ignore(_progress):
    pass

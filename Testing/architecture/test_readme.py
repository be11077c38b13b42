"""Every command and every script in README.md runs as it stands, and what it names on the panel is there."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import SimpleITK as sitk


def blocks(markdown: str, language: str) -> list[str]:
    """The contents of the fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", markdown, flags=re.DOTALL | re.MULTILINE)


def scan(shift_mm: float) -> sitk.Image:
    """A small CT-like body with one bright organ, moved left by `shift_mm`: 28x25x22 voxels of 5 mm."""
    z, y, x = np.mgrid[:22, :25, :28] * 5.0
    body = ((x - 68 - shift_mm) / 60) ** 2 + ((y - 62) / 49) ** 2 + ((z - 55) / 63) ** 2
    organ = ((x - 49 - shift_mm) / 21) ** 2 + ((y - 56) / 18) ** 2 + ((z - 55) / 25) ** 2
    intensities = np.where(organ < 1, 150.0, np.where(body < 1, 40.0, -1000.0))
    image = sitk.GetImageFromArray(intensities.astype(np.float32))
    image.SetSpacing((5.0, 5.0, 5.0))
    return image


@pytest.fixture(scope="module")
def readme(root: Path) -> str:
    return (root / "README.md").read_text("utf-8")


@pytest.fixture
def user_folder(tmp_path: Path) -> Path:
    """A folder with the three files that the README's examples read."""
    sitk.WriteImage(scan(0.0), str(tmp_path / "fixed.nii.gz"))
    sitk.WriteImage(scan(10.0), str(tmp_path / "moving.nii.gz"))
    sitk.WriteImage(sitk.Cast(scan(10.0) > 100, sitk.sitkUInt8), str(tmp_path / "atlas.nii.gz"))
    return tmp_path


def run_in(folder: Path, command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command as a user would after the set-up: in their folder, with the environment's programs."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def commands(readme: str) -> list[list[str]]:
    return [shlex.split(line) for block in blocks(readme, "sh") for line in block.splitlines()]


def test_only_the_fenced_blocks_of_the_language_are_taken() -> None:
    assert blocks("```sh\nmake a\n```\ntext\n```python\nb\n```\n", "sh") == ["make a\n"]


def test_every_command_is_one_that_these_tests_run(readme: str) -> None:
    assert {command[0] for command in commands(readme)} == {"make", "pddnet"}


def test_set_up_commands_are_targets_of_the_makefile(readme: str, root: Path) -> None:
    targets = [command for command in commands(readme) if command[0] == "make"]
    assert targets == [["make", "demo"], ["make", "test"]]
    for command in targets:
        dry_run = run_in(root, [*command, "--dry-run"])
        assert dry_run.returncode == 0, dry_run.stderr
    assert "Testing/desktop/demo.py --out demo" in run_in(root, ["make", "demo", "--dry-run"]).stdout
    assert run_in(root, ["make", "no-such-target", "--dry-run"]).returncode != 0


def test_the_command_line_example_writes_its_results(readme: str, user_folder: Path) -> None:
    (example,) = [command for command in commands(readme) if command[:2] == ["pddnet", "register"]]
    finished = run_in(user_folder, example)
    assert finished.returncode == 0, finished.stderr
    written = {file.name for file in (user_folder / example[example.index("--out") + 1]).iterdir()}
    assert {
        "transform.h5",
        "warped.nii.gz",
        "warped-labels.nii.gz",
        "uncertainty.nii.gz",
        "report.json",
    } <= written


def test_the_benchmark_example_writes_its_tables(readme: str, tmp_path: Path) -> None:
    """On the middle of the patients, coarsely: whole ones would take minutes."""
    make, measure = (c for c in commands(readme) if c[:2] in (["pddnet", "dataset"], ["pddnet", "benchmark"]))
    for command in ([*make, "--size", "24x20x26", "--spacing", "6"], measure):
        finished = run_in(tmp_path, command)
        assert finished.returncode == 0, finished.stderr
    out = tmp_path / measure[measure.index("--out") + 1]
    named = re.findall(r"`comparison/` then holds ([^:]*):", readme)[0]
    assert {file.name for file in out.iterdir() if file.is_file()} == set(re.findall(r"`([^`]+)`", named))
    results = json.loads((out / "results.json").read_text("utf-8"))
    assert [method["name"] for method in results["methods"]] == ["before", "fast", "abdomen-ct"]
    assert [len(method["scores"]) for method in results["methods"]] == [3, 3, 3]


def test_the_training_example_leaves_weights_and_a_preset_that_runs_them(
    readme: str, user_folder: Path
) -> None:
    """With three of its iterations, on scans of the names that its data set gives."""
    (dataset,), (configuration,) = blocks(readme, "json"), blocks(readme, "toml")
    (user_folder / "dataset.json").write_text(dataset, encoding="utf-8")
    (user_folder / "train.toml").write_text(configuration, encoding="utf-8")
    for number, case in enumerate(json.loads(dataset)["cases"]):
        for key in ("image", "labels"):
            (user_folder / case[key]).parent.mkdir(exist_ok=True)
        image = scan(4.0 * number)
        image.SetSpacing((1.5, 1.5, 1.5))
        sitk.WriteImage(image, str(user_folder / case["image"]))
        sitk.WriteImage(sitk.Cast(image > 100, sitk.sitkUInt8), str(user_folder / case["labels"]))
    (example,) = [command for command in commands(readme) if command[:2] == ["pddnet", "train"]]
    finished = run_in(user_folder, [*example, "--iterations", "3"])
    assert finished.returncode == 0, finished.stderr
    out = user_folder / example[example.index("--out") + 1]
    assert f"`{out.name}/best.pt`" in readme
    preset = re.search(r"`--preset (\S+)` of `pddnet register`", readme)
    assert preset is not None
    images = [user_folder / case["image"] for case in json.loads(dataset)["cases"][:2]]
    pair = ["--fixed", str(images[0]), "--moving", str(images[1]), "--out", "result"]
    finished = run_in(user_folder, ["pddnet", "register", *pair, "--preset", preset[1]])
    assert finished.returncode == 0, finished.stderr
    assert (user_folder / "result" / "warped.nii.gz").exists()


def test_the_python_example_brings_the_organ_back(readme: str, user_folder: Path) -> None:
    (example,) = [block for block in blocks(readme, "python") if "import pddnet" in block]
    finished = run_in(user_folder, [sys.executable, "-W", "error", "-c", example])
    assert finished.returncode == 0, finished.stderr
    field = sitk.DisplacementFieldTransform(sitk.ReadTransform(str(user_folder / "fixed-to-moving.h5")))
    organ = scan(0.0) > 100
    warped = sitk.Resample(scan(10.0) > 100, organ, field, sitk.sitkNearestNeighbor)
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    overlap.Execute(organ, scan(10.0) > 100)
    before = overlap.GetDiceCoefficient()
    overlap.Execute(organ, warped)
    assert overlap.GetDiceCoefficient() > max(0.9, before + 0.05)


def test_the_slicer_examples_run_one_after_the_other(readme: str, root: Path, user_folder: Path) -> None:
    """In a process of their own, on the stand-ins of the application, with a task that must finish by itself."""
    examples = [block for block in blocks(readme, "python") if "import pddnet" not in block]
    assert len(examples) == 2
    script = user_folder / "console.py"
    script.write_text(CONSOLE.format(root=str(root), examples="\n".join(examples)), encoding="utf-8")
    finished = run_in(user_folder, [sys.executable, str(script)])
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.splitlines()[0].startswith("Atlas to CT 0")
    assert finished.stdout.splitlines()[-1] == "Atlas warped to CT_1"


CONSOLE = """
import sys

sys.path[:1] = [{root!r} + "/PDDRegistration", {root!r} + "/Testing"]
from desktop import boot

boot.start(withWidgets=True)
import slicer
from desktop import modules

modules.load({root!r} + "/PDDRegistration/PDDRegistration.py")
import numpy
import SimpleITK

place = numpy.diag([-5.0, -5.0, 5.0, 1.0])  # the images are in LPS
for name, file, kind in (
    ("CT", "fixed", "vtkMRMLScalarVolumeNode"),
    ("Atlas", "moving", "vtkMRMLScalarVolumeNode"),
    ("Organs", "atlas", "vtkMRMLLabelMapVolumeNode"),
):
    voxels = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(file + ".nii.gz"))
    slicer.util.addVolumeFromArray(voxels, place, name, kind)
{examples}
while task.state == "running":
    slicer.app.processEvents()
assert task.state == "finished", task.error
"""


def test_what_the_tutorial_names_in_bold_is_on_the_panel(readme: str, root: Path) -> None:
    module = root / "PDDRegistration"
    panel = ElementTree.parse(module / "Resources" / "UI" / "PDDRegistration.ui").getroot()
    texts = {element.text for element in panel.iter("string")}
    for file in ("sample_data.py", "run_panel.py"):
        source = (module / "PDDRegistrationLib" / file).read_text("utf-8")
        texts.update(re.findall(r'_\("([^"]+)"\)', source))
    start, end = readme.index("## Tutorial"), readme.index("## From Python in Slicer")
    named = {" ".join(words.split()) for words in re.findall(r"\*\*([^*]+)\*\*", readme[start:end])}
    named -= {"To move something else along", "Inverse residual"}
    assert len(named) > 20
    assert {name for name in named if name not in texts} == set()


def test_the_pictures_are_those_that_the_script_makes_and_small(readme: str, root: Path) -> None:
    shown = re.findall(r"!\[[^\]]+\]\((Resources/Screenshots/[^)]+)\)", readme)
    there = {f"Resources/Screenshots/{file.name}" for file in (root / "Resources" / "Screenshots").iterdir()}
    assert len(shown) == len(set(shown)) == 4
    assert set(shown) == there
    script = (root / "Testing" / "desktop" / "screenshots.py").read_text("utf-8")
    for path in shown:
        assert (root / path).stat().st_size < 300_000
        assert Path(path).name in script

"""What is missing is seen without importing it, installed after one question, and never at numpy's cost."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import tomllib
import types
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from PDDRegistrationLib import dependencies, other_python, requirements
from PDDRegistrationLib.dependencies import DependencyError, Installer, checkOtherPython, missing
from PDDRegistrationLib.installed_versions import installedVersions
from PDDRegistrationLib.requirements import REQUIREMENTS, Requirement, requirementsIn


def test_the_list_is_the_backends_own_without_simpleitk(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    assert {*map(str, requirementsIn()), "SimpleITK"} == set(project["dependencies"])


def test_a_line_of_another_form_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "requirements.txt"
    path.write_text("torch>=2.2  # why\n\nnumpy\n")
    assert [str(r) for r in requirementsIn(path)] == ["torch>=2.2", "numpy"]
    path.write_text("torch==2.2\n")
    with pytest.raises(ValueError, match=r"torch==2\.2"):
        requirementsIn(path)


@pytest.mark.parametrize(
    ("version", "met"),
    [("2.2", True), ("2.13.0+cpu", True), ("3.0a1", True), ("", True), ("2.1.9", False), (None, False)],
)
def test_versions_are_compared_as_numbers(version: str | None, met: bool) -> None:
    assert Requirement("torch", "2.2").metBy(version) is met


@pytest.mark.parametrize(
    ("torch", "numpy", "lacking"),
    [
        ("2.6.0", "2.0.2", []),
        ("2.2.2", "1.26.4", []),
        ("2.2.2", "2.0.2", ["torch>=2.3"]),  # cannot exchange arrays
        (None, "2.4.6", ["torch>=2.3"]),
        (None, "1.26.4", ["torch>=2.2"]),
        ("2.6.0", None, ["numpy"]),
    ],
)
def test_what_is_missing_depends_on_numpy(torch: str | None, numpy: str | None, lacking: list[str]) -> None:
    assert [str(r) for r in missing({"torch": torch, "numpy": numpy})] == lacking


def test_nothing_is_missing_here_and_looking_imports_nothing(root: Path) -> None:
    assert missing() == ()
    script = root / "PDDRegistration" / "PDDRegistrationLib" / "installed_versions.py"
    code = f"import runpy, sys; f = runpy.run_path({str(script)!r}); print(f['installedVersions'](['torch', 'numpy']))"
    code += "; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60).stdout


def test_the_rest_of_a_removed_package_does_not_count(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "leftover" / "lib").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    assert installedVersions(["leftover", "never_heard_of", "json"]) == {
        "leftover": None,
        "never_heard_of": None,
        "json": "",
    }


@pytest.fixture
def machine(monkeypatch):
    """A made-up set of installed packages, which `Installer` sees as the present ones."""
    packages: dict[str, str | None] = {"torch": None, "numpy": "2.0.2"}

    def installed(names):
        return {name: packages.get(name) for name in names}

    monkeypatch.setattr(dependencies, "installedVersions", installed)
    monkeypatch.setattr(requirements, "installedVersions", installed)
    return packages


class FakeSlicer(SimpleNamespace):
    """The parts of the slicer module an installer asks for; `questions` keeps what was asked."""

    def __init__(self, **modules):
        super().__init__(__name__="fakeslicer", modules=SimpleNamespace(**modules), util=SimpleNamespace())
        self.questions: list[str] = []

    def installer(self, answer: bool = True) -> Installer:
        def ask(question: str) -> bool:
            self.questions.append(question)
            return answer

        return Installer(self, ask, str)


def test_with_everything_there_nobody_is_asked(machine) -> None:
    machine["torch"] = "2.6.0"
    fake = FakeSlicer()
    fake.installer().ensure()
    assert fake.questions == []


def test_a_no_installs_nothing_and_says_what_else_can_be_done(machine) -> None:
    fake = FakeSlicer()
    with pytest.raises(DependencyError, match="Press Register again") as caught:
        fake.installer(answer=False).ensure()
    assert caught.value.code == "missing"
    assert machine["torch"] is None


@pytest.mark.usefixtures("machine")
def test_the_question_says_what_how_large_and_where() -> None:
    fake = FakeSlicer()
    with pytest.raises(DependencyError):
        fake.installer(answer=False).ensure()
    (question,) = fake.questions
    for words in ("torch>=2.3", "to download", "site-packages", "GB are free", "numpy 2.0.2 stays"):
        assert words in question


def constraints() -> str:
    """What pip would read now."""
    (address,) = os.environ["PIP_CONSTRAINT"].split()
    return Path(address.removeprefix("file://").replace("%20", " ")).read_text()


def test_the_pytorch_extension_comes_first(machine, monkeypatch) -> None:
    calls = []

    class PyTorchUtilsLogic:
        def installTorch(  # noqa: N802
            self,
            askConfirmation=False,  # noqa: N803
            forceComputationBackend=None,  # noqa: N803
            torchVersionRequirement=None,  # noqa: N803
            torchvisionVersionRequirement=None,  # noqa: N803
        ):
            assert not forceComputationBackend
            assert not torchvisionVersionRequirement
            calls.append((askConfirmation, torchVersionRequirement, constraints()))
            machine["torch"] = "2.6.0+cu124"

    module = types.ModuleType("PyTorchUtils")
    module.PyTorchUtilsLogic = PyTorchUtilsLogic
    monkeypatch.setitem(sys.modules, "PyTorchUtils", module)
    fake = FakeSlicer(pytorchutils=object())
    fake.installer().ensure()
    assert calls == [(False, ">=2.3", "numpy==2.0.2\n")]
    assert len(fake.questions) == 1
    assert "PIP_CONSTRAINT" not in os.environ


def test_where_the_pytorch_extension_fails_pip_is_tried(machine, monkeypatch) -> None:
    class PyTorchUtilsLogic:
        def installTorch(self, **_options):  # noqa: N802
            raise ImportError("light_the_torch does not know this pip")

    module = types.ModuleType("PyTorchUtils")
    module.PyTorchUtilsLogic = PyTorchUtilsLogic
    monkeypatch.setitem(sys.modules, "PyTorchUtils", module)
    fake, asked = FakeSlicer(pytorchutils=object()), []

    def pip_install(requirements):
        asked.append(requirements)
        machine["torch"] = "2.6.0"

    fake.util.pip_install = pip_install
    fake.installer().ensure()
    assert asked == [["torch>=2.3"]]
    assert len(fake.questions) == 1


def test_slicers_packaging_comes_second(machine, monkeypatch) -> None:
    calls = []

    def pip_ensure(requirements, **options):
        calls.append((requirements, options))
        machine["torch"] = "2.6.0"

    packaging = types.ModuleType("fakeslicer.packaging")
    packaging.pip_ensure = pip_ensure
    monkeypatch.setitem(sys.modules, "fakeslicer", types.ModuleType("fakeslicer"))
    monkeypatch.setitem(sys.modules, "fakeslicer.packaging", packaging)
    FakeSlicer().installer().ensure()
    options = {"prompt_install": False, "prompt_restart": False, "requester": "PDDRegistration"}
    assert calls == [(["torch>=2.3"], options)]


def test_pip_install_comes_last_and_the_users_own_constraints_stay(machine, monkeypatch) -> None:
    fake, seen = FakeSlicer(), []

    def pip_install(requirements):
        seen.append((requirements, os.environ["PIP_CONSTRAINT"].split()[0]))
        machine["torch"] = "2.6.0"

    fake.util.pip_install = pip_install
    monkeypatch.setenv("PIP_CONSTRAINT", "/mine.txt")
    fake.installer().ensure()
    assert seen == [(["torch>=2.3"], "/mine.txt")]
    assert os.environ["PIP_CONSTRAINT"] == "/mine.txt"


@pytest.mark.usefixtures("machine")
def test_a_failed_installation_tells_what_to_do_without_a_network() -> None:
    fake = FakeSlicer()

    def pip_install(requirements):
        raise subprocess.CalledProcessError(1, ["pip", "install", *requirements])

    fake.util.pip_install = pip_install
    with pytest.raises(DependencyError) as caught:
        fake.installer().ensure()
    for words in ("pip download", "--no-index --find-links FOLDER", '"torch>=2.3"', "Advanced"):
        assert words in caught.value.message
    assert "Traceback" not in caught.value.message
    assert "exit status 1" in caught.value.details
    assert "PIP_CONSTRAINT" not in os.environ


def test_a_failure_that_left_everything_installed_is_none(machine) -> None:
    fake = FakeSlicer()

    def pip_install(_requirements):
        machine["torch"] = "2.6.0"
        raise RuntimeError("could not import torch")

    fake.util.pip_install = pip_install
    fake.installer().ensure()


def test_a_changed_numpy_is_reported_with_the_way_back(machine) -> None:
    fake = FakeSlicer()
    fake.util.pip_install = lambda _requirements: machine.update(torch="2.6.0", numpy="1.26.4")
    with pytest.raises(DependencyError, match=r"pip install numpy==2\.0\.2"):
        fake.installer().ensure()


# With a real pip, in a virtual environment of its own, on wheels made here


def wheel(folder: Path, name: str, version: str, needs: str = "") -> None:
    """An empty package as a wheel."""
    information = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += f"Requires-Dist: {needs}\n" if needs else ""
    files = {
        f"{name}/__init__.py": "",
        f"{information}/METADATA": metadata,
        f"{information}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in [*files, f"{information}/RECORD"])
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in {**files, f"{information}/RECORD": record}.items():
            archive.writestr(path, text)


INSTALL = """
import subprocess, sys, types
slicer, i18n = types.ModuleType("slicer"), types.ModuleType("slicer.i18n")
i18n.tr = lambda text: text
slicer.modules, slicer.util = types.SimpleNamespace(), types.SimpleNamespace()
slicer.util.pip_install = lambda names: subprocess.check_call([*{pip!r}, *names])
sys.modules |= {{"slicer": slicer, "slicer.i18n": i18n}}
from PDDRegistrationLib.dependencies import DependencyError, Installer
from PDDRegistrationLib.installed_versions import installedVersions
try:
    Installer(slicer, lambda question: True, print).ensure()
except DependencyError as error:
    print("refused:", error.message.splitlines()[0])
print(installedVersions(["torch", "numpy"]))
"""


class Site:
    """A virtual environment with numpy 2.0.2, and a folder of wheels to install from."""

    def __init__(self, folder: Path, root: Path):
        self.wheels, self.root = folder / "wheels", root
        self.temporary = folder / "with a space"
        self.wheels.mkdir()
        self.temporary.mkdir()
        subprocess.run(
            [sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True, timeout=60
        )
        self.python = str(folder / "venv" / "bin" / "python")
        self.pip = [sys.executable, "-m", "pip", "--python", self.python, "install", "--no-index", "--quiet"]
        self.pip += ["--disable-pip-version-check", "--find-links", str(self.wheels)]
        wheel(self.wheels, "numpy", "1.26.4")
        wheel(self.wheels, "numpy", "2.0.2")
        subprocess.run([*self.pip, "numpy==2.0.2"], check=True, timeout=60)

    def install(self) -> list[str]:
        environment = os.environ | {
            "PYTHONPATH": str(self.root / "PDDRegistration"),
            "TMPDIR": str(self.temporary),
        }
        command = [self.python, "-c", INSTALL.format(pip=self.pip)]
        run = subprocess.run(
            command, env=environment, check=True, capture_output=True, text=True, timeout=120
        )
        assert list(self.temporary.iterdir()) == []
        return run.stdout.splitlines()


@pytest.fixture
def site(tmp_path: Path, root: Path) -> Site:
    return Site(tmp_path, root)


def test_pip_takes_the_newest_torch_that_leaves_numpy_alone(site: Site) -> None:
    wheel(site.wheels, "torch", "2.9.0", needs="numpy<2")
    wheel(site.wheels, "torch", "2.8.0")
    assert site.install() == ["Installing torch>=2.3", "{'torch': '2.8.0', 'numpy': '2.0.2'}"]


def test_a_torch_that_wants_another_numpy_is_not_installed(site: Site) -> None:
    wheel(site.wheels, "torch", "2.9.0", needs="numpy<2")
    _, refusal, versions = site.install()
    assert refusal.startswith('refused: "torch>=2.3" could not be installed')
    assert versions == "{'torch': None, 'numpy': '2.0.2'}"
    # without the constraint pip would have taken numpy down
    subprocess.run([*site.pip, "torch"], check=True, timeout=60)
    assert site.install()[-1] == "{'torch': '2.9.0', 'numpy': '1.26.4'}"


def test_a_missing_torch_is_refused_without_a_traceback(site: Site) -> None:
    assert site.install()[1].startswith("refused:")


# Another Python


def checked(python: str, **kwargs) -> None:
    for _ in checkOtherPython(python, lambda: dict(os.environ), **kwargs):
        time.sleep(0.01)


def test_this_python_can_run_the_worker() -> None:
    checked(sys.executable)


def test_each_step_of_the_check_is_short() -> None:
    steps, before = checkOtherPython(sys.executable, lambda: dict(os.environ)), time.monotonic()
    for _ in steps:
        assert time.monotonic() - before < 0.1
        time.sleep(0.01)
        before = time.monotonic()


def test_another_python_without_torch_is_told_with_the_command(site: Site) -> None:
    with pytest.raises(DependencyError) as caught:
        checked(str(Path(site.python).parent.parent))  # the environment's folder
    assert f'"{site.python}" -m pip install "torch>=2.3"' in caught.value.message


def program(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('echo chatter; echo \'{"python": [3, 8, 1], "packages": {}}\'', "Python 3.8.1"),
        ("echo no such module >&2; exit 1", "no such module"),
        ("exit 0", "no answer"),
        ("echo 7", "cannot be used"),
        ("kill -9 $$", "no answer"),
    ],
)
def test_a_program_that_is_no_usable_python_is_told(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(DependencyError, match=reason) as caught:
        checked(program(tmp_path / "python", text))
    assert "Advanced" in caught.value.message


def test_a_missing_program_is_told(tmp_path: Path) -> None:
    with pytest.raises(DependencyError, match="No such file"):
        checked(str(tmp_path / "python"))


def test_a_python_that_does_not_answer_is_given_up_and_ended(tmp_path: Path, monkeypatch) -> None:
    children = []

    class Remembered(other_python.ChildProcess):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            children.append(self)

    monkeypatch.setattr(other_python, "ChildProcess", Remembered)
    slow = program(tmp_path / "python", "sleep 60")
    with pytest.raises(DependencyError, match="no answer in 0 s"):
        checked(slow, seconds=0.3)
    steps = checkOtherPython(slow, lambda: dict(os.environ))
    next(steps)
    steps.close()  # cancelled
    assert [child.exitCode for child in children] == [-9, -9]


def test_the_requirements_are_installed_with_the_module() -> None:
    assert REQUIREMENTS.is_file()
    assert REQUIREMENTS.parent.name == "Resources"


def test_importing_the_library_imports_only_pythons_own(root: Path) -> None:
    code = "import sys, PDDRegistrationLib; print(*{name.split('.')[0] for name in sys.modules})"
    environment = os.environ | {"PYTHONPATH": str(root / "PDDRegistration")}
    command = [
        sys.executable,
        "-S",
        "-c",
        code,
    ]  # without the site, whose packages may import something themselves
    run = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=60)
    assert set(run.stdout.split()) - sys.stdlib_module_names == {"PDDRegistrationLib", "__main__"}

"""What the worker needs that is not installed, and how it gets there: asked for once, numpy never changed."""

from __future__ import annotations

import importlib
import logging
import os
import platform
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

from .installed_versions import installedVersions
from .other_python import checkOtherPython
from .requirements import REQUIREMENTS, DependencyError, Requirement, chooseAnother, listed, missing

__all__ = ["DependencyError", "Installer", "checkOtherPython", "missing"]


class Installer:
    """Installs what is missing into Slicer's own Python, when Register is pressed.

    Args:
        slicerModule: the `slicer` module.
        ask: takes a question, returns whether the user agrees.
        tell: takes a message about what is being done.
        path: the requirements.
    """

    def __init__(
        self,
        slicerModule: Any,
        ask: Callable[[str], bool],
        tell: Callable[[str], None],
        path: Path = REQUIREMENTS,
    ):
        self._slicer, self._ask, self._tell, self._path = slicerModule, ask, tell, path

    def ensure(self) -> None:
        """Return with everything installed, after one question if something has to be; takes minutes then.

        Raises:
            DependencyError: declined or failed, with what to do.
        """
        absent = missing(path=self._path)
        if not absent:
            return
        numpy = installedVersions(["numpy"])["numpy"]
        if not self._ask(self._question(absent, numpy)):
            raise DependencyError(_declined(absent))
        failure = self._installed(absent, numpy)
        self._verify(numpy, failure)

    def _question(self, absent: Sequence[Requirement], numpy: str | None) -> str:
        folder = Path(sysconfig.get_paths()["purelib"])
        text = _(
            "PDD Registration needs Python packages that Slicer does not have yet: {packages}.\n\n"
            "Download and install them now? That is {size}, into {folder}, where {free:.0f} GB are free, and takes "
            "some minutes. numpy {numpy} stays as it is."
        )
        return text.format(
            packages=listed(absent),
            size=_size(absent),
            folder=folder,
            free=shutil.disk_usage(folder).free / 1e9,
            numpy=numpy,
        )

    def _installed(self, absent: Sequence[Requirement], numpy: str | None) -> Exception | None:
        """Install; returns what went wrong, which matters only if something is missing afterwards."""
        self._tell(_("Installing {packages}").format(packages=listed(absent)))
        try:
            with _numpyHeld(numpy):
                self._installWithSlicer(absent)
        except Exception as error:  # other extensions and pip fail in their own ways
            logging.exception("PDDRegistration: installing %s failed", listed(absent))
            return error
        return None

    def _installWithSlicer(self, absent: Sequence[Requirement]) -> None:
        torch = next((requirement for requirement in absent if requirement.name == "torch"), None)
        if torch and hasattr(self._slicer.modules, "pytorchutils"):
            try:
                _installWithPyTorchExtension(torch)
            except Exception:  # its installer changes pip from inside and fails with some versions of it
                logging.exception("PDDRegistration: the PyTorch extension failed, pip is tried")
            absent = missing(path=self._path)
        if absent:
            self._installWithPip([str(requirement) for requirement in absent])

    def _installWithPip(self, requirements: list[str]) -> None:
        try:
            packaging = importlib.import_module(f"{self._slicer.__name__}.packaging")
        except ModuleNotFoundError:  # Slicer before 5.12
            self._slicer.util.pip_install(requirements)
            return
        packaging.pip_ensure(
            requirements, prompt_install=False, prompt_restart=False, requester="PDDRegistration"
        )

    def _verify(self, numpyBefore: str | None, failure: Exception | None) -> None:
        numpy = installedVersions(["numpy"])["numpy"]
        if numpyBefore is not None and numpy != numpyBefore:
            text = _(
                "The installation changed numpy from {before} to {now}, which may break other modules. Restore it with "
                "PythonSlicer -m pip install numpy=={before} and restart Slicer."
            )
            raise DependencyError(text.format(before=numpyBefore, now=numpy), str(failure or "")) from failure
        absent = missing(path=self._path)
        if absent:
            raise DependencyError(_notInstalled(absent), str(failure or "")) from failure


def _installWithPyTorchExtension(torch: Requirement) -> None:
    """It chooses the build for the graphics card. The question was asked already."""
    logic = importlib.import_module("PyTorchUtils").PyTorchUtilsLogic()
    logic.installTorch(askConfirmation=False, torchVersionRequirement=f">={torch.oldest}")


@contextmanager
def _numpyHeld(version: str | None) -> Iterator[None]:
    """Let no pip that is started meanwhile, by whomever, install another numpy."""
    before = os.environ.get("PIP_CONSTRAINT")
    with tempfile.TemporaryDirectory(prefix="pdd-registration-") as folder:
        constraints = Path(folder, "constraints.txt")
        constraints.write_text(f"numpy=={version}\n" if version else "", encoding="utf-8")
        # an address, because pip takes a space for the end of a path here
        os.environ["PIP_CONSTRAINT"] = " ".join(filter(None, [before, constraints.resolve().as_uri()]))
        try:
            yield
        finally:
            if before is None:
                del os.environ["PIP_CONSTRAINT"]
            else:
                os.environ["PIP_CONSTRAINT"] = before


def _size(absent: Sequence[Requirement]) -> str:
    if all(requirement.name != "torch" for requirement in absent):
        return _("some 20 MB to download")
    if sys.platform == "darwin":
        return _("some 100 MB to download and 500 MB on the disk")
    return _(
        "between 200 MB (without a graphics card) and 3 GB to download and three times as much on the disk"
    )


def _declined(absent: Sequence[Requirement]) -> str:
    text = _("The registration needs {packages}. Press Register again to install, or: {other}")
    return text.format(packages=listed(absent), other=chooseAnother())


def _notInstalled(absent: Sequence[Requirement]) -> str:
    packages = " ".join(f'"{requirement}"' for requirement in absent)
    text = _(
        "{packages} could not be installed; what pip said is in the Python console and the log.\n\n"
        "Without a network: on a computer of the same system that has one and the same Slicer, run\n"
        "  PythonSlicer -m pip download --dest FOLDER {packages}\n"
        "carry FOLDER here, close Slicer and run\n"
        "  PythonSlicer -m pip install --no-index --find-links FOLDER {packages}\n"
        "PythonSlicer is in Slicer's folder bin. Or: {other}"
    )
    message = text.format(packages=packages, other=chooseAnother())
    if sys.platform == "darwin" and platform.machine() == "x86_64":
        message += " " + _(
            "For Macs with Intel processors PyTorch ended with 2.2, which needs an environment with numpy<2."
        )
    return message

"""What the steps have in common: the panel, patience, pictures, and a word for what should have been."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import slicer

from PDDRegistrationLib.input_panel import presetNames

from .dialogs import Dialogs
from .options import Options
from .pictures import Pictures
from .report import StepRecord
from .surroundings import leftIn, workers

MODULE = "PDDRegistration"
_SETTLE_S = 0.3  # time for the application to draw


def expect(condition: Any, what: str) -> None:
    """Fail the step with a sentence that says what should have been.

    Raises:
        AssertionError: the condition does not hold.
    """
    if not condition:
        raise AssertionError(f"expected: {what}")


class User:
    """The person in front of the panel.

    Args:
        options: the choices of the person who started the script.
        dialogs: what answers dialogs.
        temporary: the folder that temporary files go to.
    """

    def __init__(self, options: Options, dialogs: Dialogs, temporary: Path) -> None:
        self.options, self.dialogs, self.temporary = options, dialogs, temporary
        self.pictures = Pictures(options.folder)
        self.record = StepRecord("")  # of the step that is being done
        self._waited: set[int] = set()  # workers that waited when Register was pressed

    @property
    def panel(self) -> Any:
        """The module's `RegistrationPanel`."""
        return slicer.util.getModuleWidget(MODULE).panel

    @property
    def ui(self) -> Any:
        """The panel's widgets by name."""
        return self.panel.ui

    @property
    def result(self) -> Any:
        """What the last registration made.

        Raises:
            AssertionError: there is nothing.
        """
        result = self.panel.result
        expect(result is not None, "a result to look at; the step that registers has failed")
        return result

    def until(self, done: Callable[[], Any], seconds: float, what: str) -> Iterator[None]:
        """Let the application work until something is done.

        Raises:
            AssertionError: it was not done in time, or the user was told of an error.
        """
        end = time.monotonic() + seconds
        while not done():
            errors = self.dialogs.takeErrors()
            expect(not errors, f"{what}; the user was told: {'; '.join(errors)}")
            expect(time.monotonic() < end, f"{what} within {seconds:g} s; {self.ui.statusLabel.text}")
            yield

    def settle(self, seconds: float = _SETTLE_S) -> Iterator[None]:
        """Let the application draw and answer."""
        end = time.monotonic() + seconds
        yield
        while time.monotonic() < end:
            yield

    def choosesLess(self) -> None:
        """The preset and the number of levels that were asked for, so that it takes less time."""
        if self.options.preset:
            self.ui.presetComboBox.setCurrentIndex(presetNames().index(self.options.preset))
        if self.options.levels:
            self.ui.levelsSpinBox.setValue(self.options.levels)

    def press(self, begins: str) -> None:
        """Click Register.

        Raises:
            AssertionError: it cannot be clicked, or nothing begins.
        """
        button = self.ui.registerButton
        expect(button.enabled, f"Register can be pressed; its tooltip says: {button.toolTip}")
        self._waited.add(self.panel.nextWorker.warm.pid)
        button.click()
        expect(
            self.panel.run.busy, f"{begins} begins; {self.ui.statusLabel.text} {self.dialogs.takeErrors()}"
        )

    def underWay(self) -> Iterator[None]:
        """Wait until the worker has begun to compute."""

        def computing() -> bool:
            task = self.panel.run.task
            return task is not None and task.progress.fraction > 0.1

        yield from self.until(computing, 300, "the registration gets under way")

    def expectNothingLeft(self) -> None:
        """No process and no temporary file of a registration; one worker may wait for the next.

        Raises:
            AssertionError: there is one.
        """
        served = self._waited - {self.panel.nextWorker.warm.pid}
        running, left = workers(self.temporary, served), leftIn(self.temporary)
        expect(not running, f"no process is left, but there is {running}")
        expect(not left, f"no temporary file is left, but there is {left}")

    def photograph(self, name: str, panelToo: bool = False) -> None:
        """Add a screenshot of the window to the report, and of the whole panel."""
        self.record.screenshots.append(self.pictures.window(name))
        if panelToo:
            self.record.screenshots.append(self.pictures.widget(self.panel.widget, f"{name}-panel"))

    def tidy(self) -> None:
        """After a failure: end what runs, bring the views back, forget the errors."""
        if self.panel.run.busy:
            self.panel.run.cancel()
        if self.ui.backButton.enabled:
            self.ui.backButton.click()
        self.dialogs.takeErrors()

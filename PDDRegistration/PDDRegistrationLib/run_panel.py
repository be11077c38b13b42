"""Register, which becomes Cancel: one task at a time, its progress, its time, and how it ended."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from .controls import connected

_CLOCK_MS = 500
_WRONG_STYLE = "color: #c02020"


class RunPanel:
    """Runs tasks and shows how far they are.

    Args:
        ui: the panel's widgets by name.
        onRegister: called when the user wants to register; calls `run` if there is something to run.
        onBusy: called with True when a task begins and with False when it is over.
    """

    def __init__(self, ui: Any, onRegister: Callable[[], None], onBusy: Callable[[bool], None]) -> None:
        self._ui = ui
        self._onRegister = onRegister
        self._onBusy = onBusy
        self.task: Any = None
        self._clock = qt.QTimer(ui.registerButton)
        self._clock.setInterval(_CLOCK_MS)
        connected(self._clock, "timeout()", self._showTime)
        connected(ui.registerButton, "clicked(bool)", self._onClicked)
        self._reason, self._tip = "", ui.registerButton.toolTip
        self.say("")
        self._showIdle()

    @property
    def busy(self) -> bool:
        """A task is running."""
        return self.task is not None

    def allow(self, reason: str) -> None:
        """Enable Register, or disable it and say why."""
        self._reason = reason
        if not self.busy:
            self._ui.registerButton.enabled = not reason
            self._ui.registerButton.toolTip = reason or self._tip

    def say(self, text: str, wrong: bool = False) -> None:
        """A few words below the button; `wrong`: something failed."""
        self._ui.statusLabel.styleSheet = _WRONG_STYLE if wrong else ""
        self._ui.statusLabel.text = text
        self._ui.statusLabel.visible = bool(text)

    def run(self, begin: Callable[..., Any], onFinished: Callable[[Any], None]) -> None:
        """Start a task.

        Args:
            begin: given onProgress, onFinished, onFailed and onCancelled, starts the task and returns it.
            onFinished: called with the task's outputs.
        """
        if self.busy:
            return

        def finished(outputs: Any) -> None:
            messages = self.task.messages if self.task is not None else []
            self._over("")
            try:
                onFinished(outputs)
                self.say("\n".join([self._ui.statusLabel.text, *messages]).strip())
            except Exception as error:  # the results are there, but cannot be shown: the user is told
                self.fail(error)

        try:
            task = begin(
                onProgress=self._showProgress,
                onFinished=finished,
                onFailed=self.fail,
                onCancelled=lambda: self._over(_("Cancelled; nothing was changed.")),
            )
        except Exception as error:  # whatever it is, the user is told
            self.fail(error)
            return
        if task.state == "running":
            self.task = task
            self._showBusy()

    def cancel(self) -> None:
        """End the running task, if any."""
        if self.busy:
            self.task.cancel()

    def close(self) -> None:
        """End the running task and its clock; nothing is called afterwards."""
        self.cancel()
        self._clock.stop()

    def fail(self, error: Exception) -> None:
        """Tell the user what went wrong, with everything that is known of it."""
        self._over("")
        self.say(_("Failed: {reason}").format(reason=str(error)), wrong=True)
        details = getattr(error, "details", "") or "".join(traceback.format_exception(error))
        slicer.util.errorDisplay(str(error), windowTitle=_("Registration failed"), detailedText=details)

    def _onClicked(self, *_arguments: Any) -> None:
        if self.busy:
            self.cancel()
        else:
            self._onRegister()

    def _showBusy(self) -> None:
        ui = self._ui
        ui.registerButton.text = _("Cancel")
        ui.registerButton.toolTip = _("Stop now. Nothing is added to the scene.")
        ui.registerButton.enabled = True
        ui.progressBar.setValue(0)
        ui.stageLabel.text = _("Starting")
        ui.progressWidget.visible = True
        self.say("")
        self._clock.start()
        self._showTime()
        self._onBusy(True)

    def _over(self, text: str) -> None:
        wasBusy = self.busy
        self.task = None
        self._clock.stop()
        self._showIdle()
        self.say(text)
        if wasBusy:
            self._onBusy(False)

    def _showIdle(self) -> None:
        self._ui.progressWidget.visible = False
        self._ui.registerButton.text = _("Register")
        self.allow(self._reason)

    def _showProgress(self, progress: Any) -> None:
        self._ui.progressBar.setValue(round(100 * progress.fraction))
        self._ui.stageLabel.text = progress.message
        self._ui.stageLabel.toolTip = progress.message
        self._showTime()

    def _showTime(self) -> None:
        if not self.busy:
            return
        progress, elapsed = self.task.progress, self.task.elapsed()
        text = clock(elapsed)
        if progress.remaining is not None:
            left = max(0.0, progress.remaining - (elapsed - progress.elapsed))
            text = _("{elapsed}, about {left} left").format(elapsed=text, left=clock(left))
        self._ui.timeLabel.text = text


def clock(seconds: float) -> str:
    """Minutes and seconds, as a clock shows them: 1:05."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"

"""Dialogs that would wait for a person are answered, and remembered; errors that Slicer would only print, too."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import qt
import slicer

_LOOK_MS = 200
_OURS = str(Path(__file__).resolve().parents[3])  # errors of other modules are not this script's concern


class Dialogs:
    """Stands in for the person from now until the application ends.

    Args:
        agree: the answer to questions.
    """

    def __init__(self, agree: bool) -> None:
        self._agree = agree
        self.questions: list[str] = []
        self.errors: list[str] = []
        self.waiting = False  # somebody may show a dialog that ends by itself: pip's progress
        for name in ("errorDisplay", "warningDisplay", "infoDisplay"):
            setattr(slicer.util, name, self._told)
        for name in ("confirmOkCancelDisplay", "confirmYesNoDisplay"):
            setattr(slicer.util, name, self._asked)
        sys.excepthook = self._uncaught
        self._timer = qt.QTimer()
        self._timer.setInterval(_LOOK_MS)
        self._timer.connect("timeout()", self._look)
        self._timer.start()

    def takeErrors(self) -> list[str]:
        """What the user was told or should have been told since the last time."""
        taken, self.errors = self.errors, []
        return taken

    @contextmanager
    def saving(self, path: Path) -> Iterator[None]:
        """The next file that a dialog asks for is to be saved here."""

        class FileDialog:
            @staticmethod
            def getSaveFileName(*_arguments: Any) -> str:
                return str(path)

        before, qt.QFileDialog = qt.QFileDialog, FileDialog
        try:
            yield
        finally:
            qt.QFileDialog = before

    def stop(self) -> None:
        self._timer.stop()

    def _told(self, text: str, *_arguments: Any, detailedText: str = "", **_keywords: Any) -> None:
        self.errors.append(f"{text}\n{detailedText}".strip())

    def _asked(self, question: str, *_arguments: Any, **_keywords: Any) -> bool:
        self.questions.append(question)
        return self._agree

    def _uncaught(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        sys.__excepthook__(kind, error, trace)
        frames = traceback.extract_tb(trace)
        if any(frame.filename.startswith(_OURS) or "PDDRegistration" in frame.filename for frame in frames):
            self.errors.append("".join(traceback.format_exception(kind, error, trace)))

    def _look(self) -> None:
        """Close a dialog that nobody answers."""
        dialog = slicer.app.activeModalWidget()
        if dialog is None or self.waiting:
            return
        text = getattr(dialog, "text", "")
        self.errors.append(
            f"a dialog ({dialog.className()}) waited for an answer: {dialog.windowTitle} {text}"
        )
        dialog.close()

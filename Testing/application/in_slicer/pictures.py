"""Screenshots of the main window, and of the views alone to see whether a click has changed them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import qt
import slicer


class Pictures:
    """Takes them.

    Args:
        folder: where they are written; made if it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def possible(self) -> bool:
        """Whether there are views."""
        return slicer.app.layoutManager() is not None

    def fit(self) -> None:
        """Show all of the scans in the slice views."""
        if self.possible:
            slicer.util.resetSliceViews()

    def window(self, name: str) -> str:
        """Save the main window; returns the file's name."""
        if self.possible:
            slicer.util.forceRenderAllViews()
        return self._saved(slicer.util.mainWindow().grab(), name)

    def widget(self, widget: Any, name: str) -> str:
        """Save all of a widget, also what has to be scrolled to."""
        return self._saved(widget.grab(), name)

    def views(self, name: str) -> tuple[str, str]:
        """Save the views; returns the file's name and a fingerprint: the same for the same picture."""
        slicer.util.forceRenderAllViews()
        window, area = slicer.util.mainWindow(), slicer.app.layoutManager().viewport()
        corner = area.mapTo(window, qt.QPoint(0, 0))
        saved = self._saved(window.grab(qt.QRect(corner, area.size)), name)
        return saved, hashlib.sha256((self._folder / saved).read_bytes()).hexdigest()

    def _saved(self, pixmap: Any, name: str) -> str:
        file = f"{name}.png"
        if not pixmap.save(str(self._folder / file), "PNG"):
            raise OSError(f"the screenshot {file} could not be written to {self._folder}")
        return file

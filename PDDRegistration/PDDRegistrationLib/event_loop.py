"""The application's event loop, as the parts without Qt use it."""

from __future__ import annotations

from collections.abc import Callable

import qt
import slicer


class QtEventLoop:
    """Calls functions later on the main thread, and lets waiting events through."""

    def later(self, milliseconds: int, function: Callable[[], None]) -> None:
        """Call `function` once, when the event loop has its turn, `milliseconds` from now or a little later."""
        qt.QTimer.singleShot(milliseconds, function)

    def process(self) -> None:
        """Handle what waits: clicks, drawing, timers."""
        slicer.app.processEvents()

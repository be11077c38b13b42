"""How long the event loop is kept from its work, measured by a timer."""

from __future__ import annotations

import time

import qt

_BEAT_MS = 5


class Pulse:
    """Beats while the event loop runs; `longestMs` is the longest time between two beats since `start()`."""

    def __init__(self) -> None:
        self.longestMs = 0.0
        self._last = 0.0
        self._timer = qt.QTimer()
        self._timer.setInterval(_BEAT_MS)
        self._timer.connect("timeout()", self._beat)

    def start(self) -> None:
        self.longestMs, self._last = 0.0, time.perf_counter()
        self._timer.start()

    def stop(self) -> None:
        if self._timer.active:
            self._beat()
            self._timer.stop()

    def _beat(self) -> None:
        now = time.perf_counter()
        self.longestMs, self._last = max(self.longestMs, 1000 * (now - self._last)), now

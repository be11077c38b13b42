"""Dialogs that wait for a person: without one a test would never end, so each test says what the person answers."""

from __future__ import annotations

_WAITING = {
    "QMessageBox": {"about", "aboutQt", "critical", "information", "question", "warning"},
    "QInputDialog": {"getDouble", "getInt", "getItem", "getMultiLineText", "getText"},
    "QFileDialog": {"getExistingDirectory", "getOpenFileName", "getOpenFileNames", "getSaveFileName"},
}


def refuse(owner, name: str) -> None:
    """Raise where a call would wait for an answer that no test has given."""
    cls = owner if isinstance(owner, type) else type(owner)
    if name in ("exec", "exec_") or name in _WAITING.get(cls.__name__, ()):
        raise RuntimeError(
            f"{cls.__name__}.{name}() waits for a person: a test replaces it first, "
            f"e.g. monkeypatch.setattr(qt.{cls.__name__}, {name!r}, lambda *arguments: answer)"
        )


class QDesktopServices:
    """Opening a page or a file leaves the program; a test replaces it as well."""

    @staticmethod
    def openUrl(url) -> bool:
        raise RuntimeError(
            f"{url} would be opened in another program: a test replaces QDesktopServices.openUrl first"
        )

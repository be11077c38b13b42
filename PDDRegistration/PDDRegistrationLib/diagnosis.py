"""Why a worker failed that could not say so itself, in words for people and with a remedy."""

from __future__ import annotations

import signal

from pddnet.job import Failed

# SIGKILL, which nobody but the system sends; the same through a shell; Windows: no memory, no room in the page file
_OUT_OF_MEMORY = {-9, 137, 0xC0000017, 0xC000012D}
_MEMORY_WORDS = (
    "MemoryError",
    "bad_alloc",
    "not enough memory",
    "an't allocate memory",
    "annot allocate memory",
)
_LAUNCHER_CRASH = "exit abnormally"  # PythonSlicer's words; it then ends with code 1, whatever the signal was
_MODULES = "Extension modules:"  # faulthandler's list
_FAULT = "Fatal Python error"  # what faulthandler leaves on every deadly signal but SIGKILL

_MEMORY_REMEDY = (
    "Close other programs, choose the preset 'fast' or fewer levels under Advanced, or crop the scans to the "
    "region of interest; then press Register again. The scene is unchanged."
)
_AGAIN_REMEDY = (
    "Press Register again; if it happens once more, choose the device 'cpu' under Advanced (a graphics card's driver "
    "may be at fault) and report the details to the module's authors. The scene is unchanged."
)
_PYTHON_REMEDY = (
    "Under Advanced, Python environment, choose the Python program of an environment that has PyTorch, or leave it "
    "empty for Slicer's own."
)


def neverStarted(python: str, error: OSError) -> Failed:
    """`python` could not be started at all."""
    message = f"Python could not be started as {python}: {error.strerror}. {_PYTHON_REMEDY}"
    return Failed("python", message, str(error))


def hanging(problem: str, lastWords: str) -> Failed:
    """It was ended for `problem`, a sentence."""
    return Failed("hang", f"{problem} {_AGAIN_REMEDY}", lastWords)


def diagnosis(exitCode: int, lastWords: str, python: str, hadStarted: bool) -> Failed:
    """Why a worker ended without a result, from its exit code and the end of its standard error."""
    killed = _LAUNCHER_CRASH in lastWords and _FAULT not in lastWords
    if exitCode in _OUT_OF_MEMORY or killed or any(words in lastWords for words in _MEMORY_WORDS):
        message = f"The registration was ended because the computer's memory ran out. {_MEMORY_REMEDY}"
        return Failed("memory", message, _details(exitCode, lastWords))
    said = _said(lastWords)
    if not hadStarted:
        message = f"The registration could not be started with the Python {python}.{said} {_PYTHON_REMEDY}"
        return Failed("python", message, _details(exitCode, lastWords))
    message = f"The registration's process ended unexpectedly ({_named(exitCode)}).{said} {_AGAIN_REMEDY}"
    return Failed("crash", message, _details(exitCode, lastWords))


def _said(lastWords: str) -> str:
    """The last line that says something; after a crash a list of loaded modules follows it."""
    lines = [line for line in lastWords.splitlines() if line.strip() and not line.startswith(_MODULES)]
    return f' It said last: "{lines[-1][:300]}".' if lines else ""


def _named(exitCode: int) -> str:
    if exitCode >= 0:
        return f"exit code {exitCode}" if exitCode < 0x80000000 else f"exit code {exitCode:#x}"
    names = {int(number): number.name for number in signal.Signals}
    return f"signal {names.get(-exitCode, -exitCode)}"


def _details(exitCode: int, lastWords: str) -> str:
    return f"{_named(exitCode)}\n{lastWords}".strip()

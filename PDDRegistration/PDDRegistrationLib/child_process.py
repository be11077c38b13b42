"""A process of our own: read without blocking and without threads, ended together with all that it started.

Threads would not do: Slicer's event loop holds Python's interpreter lock, so that they move only while it runs Python.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

_CHUNK = 1 << 16
_LONGEST_LINE = 1 << 23  # bytes; more without an end of line is no message
_TAIL = 1 << 13  # bytes of standard error that are kept
_LAST_MOMENTS = 0.4  # seconds that an ended process gets to vanish
_dying: list[subprocess.Popen] = []  # killed, and not gone yet: a busy machine lets them wait


class ChildProcess:
    """A process whose standard input stays open until it is ended.

    Raises:
        OSError: the program is missing or cannot be started.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None, workingFolder: Path):
        _buryTheDead()
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=None if environment is None else dict(environment),
            cwd=workingFolder,
            **_ofItsOwn(),
        )
        self._output = _Pipe(self._process.stdout)
        self._errors = _Pipe(self._process.stderr)
        self._lines: deque[bytes] = deque()
        self._unfinished = bytearray()
        self._tail = b""
        self._ended = False

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exitCode(self) -> int | None:
        """None while it runs; minus the signal's number where a signal ended it."""
        return self._process.poll()

    @property
    def lastWords(self) -> str:
        """The end of what it wrote to standard error."""
        self._readErrors()
        return self._tail.decode("utf-8", "replace").strip()

    def lines(self) -> Iterator[str]:
        """The lines of standard output that have come and were not yet given, one at a time.

        What nobody asks for stays in the pipe, where it holds the writer back: the memory is bounded.
        """
        self._readErrors()
        while self._lines or self._readOutput():
            if self._lines:
                yield self._lines.popleft().decode("utf-8", "replace").rstrip("\r")

    def say(self, line: str) -> bool:
        """Write a line, of some hundred characters, to its standard input; False where it cannot be told."""
        if self._ended or "\n" in line:
            return False
        try:
            with _withoutBrokenPipeSignal():
                self._process.stdin.write(os.fsencode(line) + b"\n")
        except OSError:  # a broken pipe, however this system calls it
            return False
        return True

    def rest(self) -> str:
        """What an ended process wrote last without ending the line."""
        text = self._unfinished.decode("utf-8", "replace")
        self._unfinished.clear()
        return text

    def end(self, workerPid: int = 0) -> bool:
        """Kill it, what it started and `workerPid` (its worker, where it is a launcher); False if some live on.

        Takes less than half a second on POSIX systems; a second call does nothing.
        """
        if self._ended:
            return True
        self._ended = True
        self._readErrors()
        kill = _killOnWindows if os.name == "nt" else _killGroup
        kill(self._process, workerPid)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            pipe.close()  # a worker out of the kill's reach leaves when its input closes
        return _vanished(self._process)

    def _readOutput(self) -> bool:
        """Move what has come into whole lines; False when nothing has."""
        if self._ended:
            return False
        chunk = self._output.read()
        *whole, rest = chunk.split(b"\n")
        for line in whole:
            self._lines.append(bytes(self._unfinished) + line)
            self._unfinished.clear()
        self._unfinished += rest
        if len(self._unfinished) > _LONGEST_LINE:
            self._lines.append(bytes(self._unfinished))
            self._unfinished.clear()
        return bool(chunk)

    def _readErrors(self) -> None:
        if self._ended:
            return
        for _ in range(16):  # at most 1 MB a call: a flood must not hold the caller
            chunk = self._errors.read()
            if not chunk:
                break
            self._tail = (self._tail + chunk)[-_TAIL:]


@contextlib.contextmanager
def _withoutBrokenPipeSignal() -> Iterator[None]:
    """Writing to a process that is gone is an error and no signal, which would end an application that lets it."""
    if not hasattr(signal, "SIGPIPE"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})
    try:
        yield
    finally:
        if signal.SIGPIPE not in before:
            if signal.SIGPIPE in signal.sigpending():
                signal.sigwait({signal.SIGPIPE})
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Pipe:
    """The reading end of a pipe that never waits."""

    def __init__(self, stream):
        self._descriptor = stream.fileno()
        if os.name != "nt":
            os.set_blocking(self._descriptor, False)

    def read(self) -> bytes:
        """What has come, at most 64 kB; nothing when nothing has, or when it is closed."""
        if os.name == "nt" and not _available(self._descriptor):
            return b""
        try:
            return os.read(self._descriptor, _CHUNK)
        except BlockingIOError:
            return b""


def _available(descriptor: int) -> int:
    """Bytes waiting in a pipe on Windows, where a pipe cannot be made non-blocking before Python 3.12."""
    import _winapi  # as multiprocessing.connection does
    import msvcrt

    try:
        return _winapi.PeekNamedPipe(msvcrt.get_osfhandle(descriptor), 0)[0]
    except BrokenPipeError:  # the writer has gone and everything was read
        return 0


def _ofItsOwn() -> dict[str, object]:
    """Arguments of Popen for a process that can be ended with its children, and that opens no window."""
    if os.name == "nt":
        flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
        return {"creationflags": flags | subprocess.BELOW_NORMAL_PRIORITY_CLASS}  # the application goes first
    return {"start_new_session": True}


def _killGroup(process: subprocess.Popen, workerPid: int) -> None:
    """POSIX: the group of `process`, and the worker if it is in another group of our session."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if workerPid and os.getsid(workerPid) == process.pid:  # else the number may be somebody else's by now
            os.kill(workerPid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _killOnWindows(process: subprocess.Popen, workerPid: int) -> None:
    """Windows: the trees of both; what has gone already is no error."""
    program = Path(os.environ.get("SYSTEMROOT", r"C:\Windows"), "System32", "taskkill.exe")
    trees = [text for pid in {process.pid, workerPid} - {0} for text in ("/PID", str(pid))]
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(
            [program, "/F", "/T", *trees],
            capture_output=True,
            check=False,
            timeout=2,
            creationflags=subprocess.CREATE_NO_WINDOW,
        )
    if process.poll() is None:
        process.kill()


def _vanished(process: subprocess.Popen) -> bool:
    """Wait, shortly, until neither the process nor its group is left."""
    until = time.monotonic() + _LAST_MOMENTS
    while process.poll() is None or _groupLives(process.pid):
        if time.monotonic() > until:
            if process.returncode is None:
                _dying.append(process)
            return process.returncode is not None
        time.sleep(0.005)
    return True


def _buryTheDead() -> None:
    """Take note of killed processes that have gone meanwhile: until somebody does, the system keeps their entry."""
    _dying[:] = [process for process in _dying if process.poll() is None]


def _groupLives(leader: int) -> bool:
    if os.name == "nt":
        return False
    try:
        os.killpg(leader, 0)
    except (ProcessLookupError, PermissionError):  # macOS refuses where only dead ones are left
        return False
    return True

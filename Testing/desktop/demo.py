"""What `make demo` runs: the module's logic on a real MRML scene, without the desktop application.

    python Testing/desktop/demo.py --out demo

Two patients that a program makes up are registered as the panel would do it. The folder then holds the scene as a
Slicer bundle, pictures of the views and of the panel, the quality table, and the images and the transform as files.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from pathlib import Path

if __name__ == "__main__":
    sys.path.pop(0)  # this folder, whose names would hide others
    for folder in ("PDDRegistration", "Testing"):
        sys.path.insert(0, str(Path(__file__).resolve().parents[2] / folder))

from pddnet.cli import BAD_INPUT, CANCELLED, OK, UNEXPECTED
from pddnet.errors import InputError, RegistrationCancelled
from pddnet.process import let_waiting_threads_sleep
from pddnet.terminal import Interruption, ProgressDisplay, native_messages_hidden


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 0 done, 1 failed, 2 wrong input, 130 cancelled."""
    parsed = _parser().parse_args(arguments)
    let_waiting_threads_sleep()
    try:
        with native_messages_hidden(), Interruption() as interruption:
            print(_demonstrated(parsed, interruption))
    except (RegistrationCancelled, KeyboardInterrupt):
        return _ended(CANCELLED, "cancelled; nothing was written")
    except Exception as error:
        if parsed.debug:
            traceback.print_exc()
        wrong = isinstance(error, InputError) or getattr(error, "code", "") == "input"  # RegistrationError's
        return _ended(BAD_INPUT if wrong else UNEXPECTED, str(error))
    return OK


def _demonstrated(parsed: argparse.Namespace, interruption: Interruption) -> str:
    from desktop import boot

    boot.start(withWidgets=True)
    from desktop.demo_run import runDemo, summary  # needs the application's surroundings
    from pddnet.job import SyntheticRequest
    from PDDRegistrationLib.settings import RegistrationSettings

    settings = RegistrationSettings(preset=parsed.preset, device=parsed.device, inverse=True)
    pair = SyntheticRequest(size=tuple(parsed.size), spacing_mm=parsed.spacing_mm)
    display = ProgressDisplay()
    try:
        report = runDemo(parsed.out, settings, pair, display, interruption.check)
    finally:
        display.close()
    return summary(report, parsed.out)


def _ended(code: int, sentence: str) -> int:
    print(f"demo: {sentence}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="demo", description="Register two made-up patients in a MRML scene."
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="FOLDER", help="where results go")
    add("--preset", default="abdomen-ct", help="name or .toml file; `pddnet info` lists them")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    add(
        "--size",
        type=int,
        nargs=3,
        default=(120, 100, 140),
        metavar=("X", "Y", "Z"),
        help="voxels of both scans",
    )
    add("--spacing-mm", type=float, default=3.0, metavar="MM", help="size of a voxel")
    add("--debug", action="store_true", help="show tracebacks")
    return parser


if __name__ == "__main__":
    sys.exit(main())

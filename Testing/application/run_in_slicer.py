"""Tries PDDRegistration in 3D Slicer as a user would: opens the panel, clicks, waits, looks, and writes a report.

    PDDREGISTRATION_OUT=FOLDER Slicer --no-splash --additional-module-path PDDRegistration \
        --python-script Testing/application/run_in_slicer.py

Takes some ten minutes without a graphics card and needs no hands: do not use that Slicer meanwhile. It ends by itself
with exit code 0, or 1 if anything failed. FOLDER gets report.txt, report.json, screenshots, a table and a scene; see
`in_slicer/options.py` for the other variables.
"""

import os
import sys
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).resolve().parent)
)  # the application takes it away when this file is read

import slicer
from in_slicer.options import Options
from in_slicer.session import Session


def main() -> None:
    slicer.app.commandOptions().runPythonAndExit = False  # with --testing it would end before the first step
    try:
        session = Session(Options.of(os.environ))
    except Exception as error:
        print(f"run_in_slicer.py: {error}", file=sys.stderr)
        slicer.util.exit(1)
        raise
    session.start()


main()

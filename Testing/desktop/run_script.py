"""Runs a script as the application does with `--python-script`, on its stand-ins.

python Testing/desktop/run_script.py SCRIPT [--python-code CODE] [--offline]
python Testing/desktop/run_script.py --reload-and-test

The module PDDRegistration is loaded first; `--python-code` runs after the script, as in the application. The exit code
is the one that the script gives to `slicer.util.exit`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "PDDRegistration" / "PDDRegistration.py"


def main() -> int:
    options = _options()
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).parent]
    sys.path[:0] = [str(MODULE.parent), str(ROOT / "Testing")]
    from desktop import boot

    boot.start(withWidgets=True)
    import slicer

    from desktop import modules
    from desktop.main_window import qSlicerMainWindow

    modules.load(MODULE)
    window = qSlicerMainWindow()
    window.show()
    slicer.app.completeStartup()
    if options.offline:
        import SampleData

        SampleData.offline = True
    try:
        if options.reload_and_test:
            slicer.util.selectModule(MODULE.stem)
            slicer.util.getModuleWidget(MODULE.stem).onReloadAndTest()
            return 0
        return _run(options.script, options.python_code)
    finally:
        slicer.util.getModuleWidget(MODULE.stem).cleanup()
        window.end()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("script", nargs="?", type=Path)
    parser.add_argument("--python-code", default="")
    parser.add_argument("--offline", action="store_true", help="samples cannot be downloaded")
    parser.add_argument("--reload-and-test", action="store_true", help="press Reload & Test, run no script")
    options = parser.parse_args()
    if (options.script is None) != options.reload_and_test:
        parser.error("give either a SCRIPT or --reload-and-test")
    return options


def _run(script: Path, code: str) -> int:
    """The script within a running event loop; its folder is on the path only meanwhile."""
    from PySide6.QtCore import QTimer
    from PySide6.QtWidgets import QApplication

    def execute() -> None:
        space = {"__name__": "__main__", "__file__": str(script)}
        sys.path.insert(0, str(script.resolve().parent))
        try:
            exec(compile(script.read_bytes(), str(script), "exec"), space)
        finally:
            sys.path.pop(0)
        exec(code, space)

    QTimer.singleShot(0, execute)
    return QApplication.exec()


if __name__ == "__main__":
    sys.exit(main())

"""The command line: `pddnet register | warp | invert | evaluate | info | train | benchmark | dataset | demo | bench`.

Exit codes: 0 done, 1 unexpected failure, 2 usage or input, 3 not enough memory, 130 cancelled. Results go to
standard output, everything else to standard error; every failure is one sentence that says what to do.
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pddnet
from pddnet.cli_options import (
    add_bench,
    add_benchmark,
    add_common,
    add_dataset,
    add_device,
    add_preset,
    add_train,
)
from pddnet.errors import InputError, RegistrationCancelled, TrainingCancelled, is_out_of_memory
from pddnet.process import (
    keep_freed_memory,
    leave_at_once,
    let_waiting_threads_sleep,
    without_garbage_collection,
)
from pddnet.terminal import Interruption, native_messages_hidden

if TYPE_CHECKING:
    from pddnet.commands import Answer

_CANCELLED = {"benchmark": "cancelled; what was measured is kept, and the same command goes on from there"}
OK, UNEXPECTED, BAD_INPUT, NOT_ENOUGH_MEMORY, CANCELLED = 0, 1, 2, 3, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; `arguments` are those of the process by default. Returns the exit code."""
    parsed = _parser().parse_args(arguments)
    let_waiting_threads_sleep()
    keep_freed_memory()
    try:
        with Interruption(immediate=parsed.immediate) as interruption:
            if parsed.debug:
                _run(parsed, interruption)
            else:
                with native_messages_hidden():
                    _run(parsed, interruption)
    except (Exception, KeyboardInterrupt) as error:
        if parsed.debug:
            traceback.print_exc()
        code, sentence = _explain(error, parsed.command)
        print(f"pddnet {parsed.command}: {sentence}", file=sys.stderr)
        return code
    return OK


def run() -> NoReturn:
    """The program: `main`, and the end of the process."""
    leave_at_once(main())


def _run(parsed: argparse.Namespace, interruption: Interruption) -> None:
    from pddnet.strict_json import to_json

    if parsed.command == "register":
        from pddnet.interop.read_ahead import RegisterImages

        fixed, moving = (parsed.fixed, parsed.fixed_series), (parsed.moving, parsed.moving_series)
        parsed.images = RegisterImages.ahead(fixed, moving, parsed.labels)  # while PyTorch is imported
    with without_garbage_collection():
        work = _work(parsed.command)
    answer = work(parsed, interruption)
    print(json.dumps(to_json(answer.report), indent=2, allow_nan=False) if parsed.json else answer.text)


def _work(command: str) -> Callable[[argparse.Namespace, Interruption], Answer]:
    """What does a command's work; PyTorch and SimpleITK are imported only now."""
    if command == "bench":
        from pddnet.bench_commands import bench

        return bench
    if command == "benchmark":
        from pddnet.benchmark_commands import benchmark

        return benchmark
    if command == "dataset":
        from pddnet.benchmark_commands import dataset

        return dataset
    if command == "train":
        from pddnet.train_commands import train_command

        return train_command
    from pddnet.commands import BY_NAME

    return BY_NAME[command]


def _explain(error: BaseException, command: str) -> tuple[int, str]:
    """The exit code of an exception and a sentence about it."""
    text = " ".join(str(error).split())
    if isinstance(error, TrainingCancelled):
        return CANCELLED, _CANCELLED.get(command, text)
    if isinstance(error, RegistrationCancelled | KeyboardInterrupt):
        return CANCELLED, _CANCELLED.get(command, "cancelled; nothing was written")
    if is_out_of_memory(error):
        return NOT_ENOUGH_MEMORY, text or "not enough memory; close other programs or choose a smaller preset"
    if isinstance(error, InputError):
        return BAD_INPUT, text
    if isinstance(error, OSError):
        return UNEXPECTED, text
    return (
        UNEXPECTED,
        f"unexpected {type(error).__name__}: {text}; run it again with --debug and report what it prints",
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pddnet", description=pddnet.__doc__)
    parser.add_argument("--version", action="version", version=f"pddnet {pddnet.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (add_arguments, asks, summary) in _COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        command.set_defaults(immediate=not asks)
        add_arguments(command)
        if name not in ("bench", "dataset"):  # their own commands have them
            add_common(command)
    return parser


def _add_register(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--fixed", type=Path, required=True, metavar="SCAN", help="image file or folder of one DICOM series")
    add(
        "--moving",
        type=Path,
        required=True,
        metavar="SCAN",
        help="the scan that is brought onto the fixed one",
    )
    add(
        "--out",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="where results go; made if it does not exist",
    )
    add(
        "--labels",
        type=Path,
        nargs="+",
        default=[],
        metavar="SEG",
        help="label maps of the moving scan to warp",
    )
    add("--fixed-mask", type=Path, metavar="SEG", help="label map: outside it the fixed scan does not count")
    add(
        "--moving-mask", type=Path, metavar="SEG", help="label map: outside it the moving scan does not count"
    )
    add("--fixed-series", metavar="UID", help="which DICOM series, where the fixed folder holds several")
    add("--moving-series", metavar="UID", help="which DICOM series, where the moving folder holds several")
    add(
        "--initial-transform",
        type=Path,
        metavar="FILE",
        help="ITK transform, fixed to moving point, or: centres",
    )
    add(
        "--no-global-stage",
        action="store_true",
        help="skip the global alignment before the deformable levels",
    )
    add("--weights", metavar="FILE", help="checkpoint of the features, for presets that use a network")
    add("--inverse", action="store_true", help="write inverse-transform.h5 too")
    add(
        "--max-memory",
        type=float,
        metavar="MB",
        help="refuse to start if more memory than this would be needed",
    )
    add_preset(command)
    add_device(command)


def _add_warp(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("image", type=Path, help="the image or label map to warp, in the moving scan's space")
    add("--transform", type=Path, required=True, metavar="FILE", help="fixed to moving point")
    add("--reference", type=Path, metavar="SCAN", help="grid of the result; the transform's own by default")
    add("--labels", action="store_true", help="the image is a label map: take the nearest voxel, do not mix")
    add("--out", type=Path, required=True, metavar="FILE", help=".nii.gz, .nii, .nrrd or .mha")


def _add_invert(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--transform", type=Path, required=True, metavar="FILE", help="fixed to moving point")
    add(
        "--reference",
        type=Path,
        required=True,
        metavar="SCAN",
        help="the moving scan, whose grid the inverse takes",
    )
    add("--fixed", type=Path, metavar="SCAN", help="the fixed scan, needed to invert a composite transform")
    add(
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help=".h5, or an image suffix for a displacement field",
    )


def _add_evaluate(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--fixed-labels", type=Path, metavar="SEG", help="label map of the fixed scan")
    add("--moving-labels", type=Path, metavar="SEG", help="label map of the moving scan")
    add("--warped-labels", type=Path, metavar="SEG", help="the moving label map after the registration")
    add("--transform", type=Path, metavar="FILE", help="fixed to moving point")
    add("--landmarks", type=Path, metavar="CSV", help="rows of fixed x, y, z, moving x, y, z in mm, LPS")


def _add_info(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--fixed", type=Path, metavar="SCAN", help="with --moving: would these two scans fit?"
    )
    command.add_argument("--moving", type=Path, metavar="SCAN")
    add_preset(command)


def _add_demo(command: argparse.ArgumentParser) -> None:
    command.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where results go")
    add_preset(command, "abdomen-ct")
    add_device(command)


# what adds a command's arguments, whether its work asks to be interrupted, and its summary
_COMMANDS: dict[str, tuple[Callable[[argparse.ArgumentParser], None], bool, str]] = {
    "register": (_add_register, True, "register two scans and write a folder of results"),
    "warp": (_add_warp, False, "resample an image or a label map through a transform"),
    "invert": (_add_invert, True, "write the transform from moving to fixed points"),
    "evaluate": (_add_evaluate, False, "judge a registration by labels, landmarks and its transform"),
    "info": (_add_info, False, "show versions, devices, presets and memory"),
    "train": (add_train, True, "train a registration on a data set"),
    "demo": (_add_demo, True, "make two scans, register them and show the results"),
    "bench": (add_bench, False, "measure how fast this machine registers"),
    "benchmark": (add_benchmark, True, "compare registration methods by cross-validation on a data set"),
    "dataset": (add_dataset, True, "make a data set of synthetic patients"),
}

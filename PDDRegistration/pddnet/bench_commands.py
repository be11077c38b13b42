"""`pddnet bench layers | register`: how long this machine takes, and what it could reach."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pddnet.benchmarks.layers import LayerProblem, check_memory, layer_report, peak_mb, run_layers
from pddnet.benchmarks.machine import machine_facts, measure_limits
from pddnet.benchmarks.registering import benchmark_register
from pddnet.commands import Answer
from pddnet.config import load_preset
from pddnet.devices import resolve_device
from pddnet.interop.files import check_writable
from pddnet.terminal import Interruption


def bench(arguments: argparse.Namespace, _: Interruption) -> Answer:
    """Run the benchmark that the command line names."""
    return _BY_NAME[arguments.benchmark](arguments)


def layers(arguments: argparse.Namespace) -> Answer:
    """Time the 6-D layers on made-up features, in this process."""
    if arguments.save is not None:
        check_writable(arguments.save, (".npy",))
    device = resolve_device(arguments.device)
    problem = LayerProblem(arguments.control_points, arguments.labels, arguments.channels, arguments.seed)
    check_memory(problem, device)
    with _threads(arguments.threads):
        fixed, moving = problem.features(device)
        runs = [run_layers(problem, fixed, moving)]
        peak_of_one = peak_mb(device)
        runs += [run_layers(problem, fixed, moving) for _ in range(arguments.repeat - 1)]
        peak_of_all = peak_mb(device)  # before the arrays that measure the machine
        report = layer_report(problem, runs, measure_limits(device), peak_of_one)
        report |= {"peak_mb_of_all_runs": peak_of_all, "seed": problem.seed, "machine": machine_facts(device)}
    if arguments.save is not None:
        np.save(arguments.save, runs[-1].displacement.cpu().numpy())
    return Answer(report, _layers_text(report))


def register(arguments: argparse.Namespace) -> Answer:
    """Time `pddnet register` on a made-up pair, in a process of its own."""
    load_preset(arguments.preset)
    device = resolve_device(arguments.device)
    with tempfile.TemporaryDirectory(prefix="pddnet-bench-") as folder:
        report = benchmark_register(
            Path(folder),
            preset=arguments.preset,
            size=arguments.size,
            spacing_mm=arguments.spacing,
            seed=arguments.seed,
            device=str(device),
            threads=arguments.threads,
            repeat=arguments.repeat,
            tell=lambda message: print(message, file=sys.stderr, flush=True),
        )
    with _threads(arguments.threads):
        report |= {"seed": arguments.seed, "machine": machine_facts(device)}
    return Answer(report, _register_text(report))


def _layers_text(report: Mapping[str, Any]) -> str:
    limits = report["limits"]
    return "\n".join(
        [
            f"{report['control_points']}^3 control points, {report['labels']}^3 labels, {report['channels']} "
            f"channels: {report['seconds']:.3f} s, peak memory {report['peak_mb']:.0f} MB "
            f"(one 6-D volume: {report['volume_mb']:.0f} MB)",
            *_stage_lines(report["stages"]),
            f"memory {limits['copy_gb_s']:.1f} GB/s copied, {limits['in_place_gb_s']:.1f} GB/s in place; "
            f"matrix products {limits['gemm_gflop_s']:.0f} GFLOP/s; "
            f"minima in the cache {limits['elementwise_gop_s']:.1f} Gop/s",
            f"at least {report['least_bytes'] / 1e9:.3f} GB and {report['least_flops'] / 1e9:.2f} GFLOP: "
            f"{report['least_seconds']:.3f} s, {report['fraction_of_limit']:.1%} of the time taken",
            _machine_line(report["machine"]),
        ]
    )


def _register_text(report: Mapping[str, Any]) -> str:
    return "\n".join(
        [
            f"{report['preset']}, {'x'.join(map(str, report['size']))} voxels of {report['spacing_mm']:g} mm: "
            f"registration {report['seconds']:.1f} s, whole command {report['command_seconds']:.1f} s, "
            f"peak memory {report['peak_mb']:.0f} MB",
            *_stage_lines(report["stages"]),
            f"mean Dice {report['dice_before']:.3f} before, {report['dice_after']:.3f} after; "
            f"folding {report['folding_percent']:.4f} %",
            _machine_line(report["machine"]),
        ]
    )


def _stage_lines(stages: Mapping[str, float]) -> list[str]:
    width = max(map(len, stages))
    return [f"  {name:{width}}  {seconds:8.3f} s" for name, seconds in stages.items()]


def _machine_line(machine: Mapping[str, Any]) -> str:
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads, on {machine['device']}, "
        f"torch {machine['torch']}"
    )


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    """So many of PyTorch's threads, if a number is given."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


_BY_NAME: dict[str, Callable[[argparse.Namespace], Answer]] = {"layers": layers, "register": register}

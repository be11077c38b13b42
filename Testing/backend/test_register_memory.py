"""The paper's image size on an ordinary computer: run in a process of its own, whose peak memory is its own too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

_PROGRAM = """
import json
import pddnet
from pddnet.estimate import estimate_peak_memory_mb
from pddnet.memory import peak_memory_mb
from pddnet.synthetic import synthetic_patient

fixed, moving = (synthetic_patient(seed, size=(233, 168, 286), spacing_mm=1.5) for seed in (1, 2))
estimate = estimate_peak_memory_mb(fixed.ct.geometry, moving.ct.geometry, "abdomen-ct")
before = pddnet.metrics.dice(fixed.labels, moving.labels)
result = pddnet.register(fixed.ct, moving.ct, preset="abdomen-ct", device="cpu")
after = pddnet.metrics.dice(fixed.labels, result.displacement.warp(moving.labels))
print(json.dumps({
    "peak_mb": peak_memory_mb(),
    "estimate_mb": estimate,
    "reported_mb": result.peak_memory_mb,
    "before": sum(before.values()) / len(before),
    "after": sum(after.values()) / len(after),
}))
"""


def test_the_paper_s_size_stays_under_four_gigabytes(root: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(root / "PDDRegistration"), "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        env=environment,
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["peak_mb"] < 4000
    assert found["reported_mb"] > 0.7 * found["peak_mb"]
    assert 0.7 * found["peak_mb"] < found["estimate_mb"] < 2 * found["peak_mb"]
    assert found["after"] > found["before"] + 0.3

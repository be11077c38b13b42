"""A preset for tests of what surrounds a registration: one level, done in a moment."""

from __future__ import annotations

PRESET = """
description = "Small enough for a test"
spacing_mm = 8.0
global_stage = "off"

[intensity]
kind = "window"
low = -125.0
high = 275.0

[[levels]]
step = 2
spacing = 4
reach = 8
features = "coarse"
couplings = [0.002, 0.01, 0.05]
"""

"""What the panel says about where a registration will run."""

from __future__ import annotations

import sys

import pytest

from pddnet.devices import resolve_device
from PDDRegistrationLib import device_guess
from PDDRegistrationLib.device_guess import likelyDevice
from PDDRegistrationLib.settings import RegistrationSettings


@pytest.mark.parametrize(
    ("version", "driver", "platform", "expected"),
    [
        ("2.13.0+cpu", True, "linux", "cpu"),
        ("2.13.0+cu130", True, "linux", "cuda"),
        ("2.13.0", True, "win32", "cuda"),
        ("2.13.0", False, "linux", "cpu"),
        ("2.13.0", True, "darwin", "cpu"),
        (None, True, "linux", "auto"),
    ],
)
def test_the_build_of_pytorch_and_the_driver_decide(monkeypatch, version, driver, platform, expected):
    monkeypatch.setattr(device_guess, "installedVersions", lambda names: {names[0]: version})
    monkeypatch.setattr(device_guess, "hasDriver", lambda: driver)
    monkeypatch.setattr(sys, "platform", platform)
    assert likelyDevice(RegistrationSettings()) == expected


def test_a_device_that_was_chosen_is_taken_at_its_word():
    assert likelyDevice(RegistrationSettings(device="cuda:1")) == "cuda:1"


def test_nothing_is_said_of_another_python():
    assert likelyDevice(RegistrationSettings(python="/opt/other/bin/python")) == "auto"


def test_here_the_guess_is_what_the_engine_does():
    assert likelyDevice(RegistrationSettings()) == resolve_device("auto").type

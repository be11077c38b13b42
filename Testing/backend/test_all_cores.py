"""Work shared out among threads: each piece once, threads put back, errors raised by whoever asked."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
import torch

from pddnet.all_cores import share_out

CPU = torch.device("cpu")


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_every_piece_is_worked_on_once_on_one_core_without_gradients(threads: int) -> None:
    seen: Counter[int] = Counter()
    settings = set()

    def make_worker(_: int) -> Callable[[int], None]:
        def work(number: int) -> None:
            seen[number] += 1
            settings.add((torch.get_num_threads(), torch.is_grad_enabled()))

        return work

    share_out(20, make_worker, CPU)
    assert seen == Counter(range(20))
    assert settings == {(1, False)}
    assert torch.get_num_threads() == threads
    assert torch.is_grad_enabled()


def test_every_thread_has_a_worker_of_its_own(threads: int) -> None:
    together = threading.Barrier(threads, timeout=30)
    made = []

    def make_worker(_: int) -> Callable[[int], None]:
        made.append(threading.get_ident())

        def work(_: int) -> None:
            assert threading.get_ident() == mine
            together.wait()  # passes only where all threads work at once

        mine = threading.get_ident()
        return work

    share_out(threads, make_worker, CPU)
    assert len(set(made)) == len(made) == threads


def test_an_error_in_any_thread_ends_the_work_and_is_raised(threads: int) -> None:
    done = []

    def make_worker(_: int) -> Callable[[int], None]:
        def work(number: int) -> None:
            if number == 3:
                raise ValueError("piece 3")
            done.append(number)

        return work

    with pytest.raises(ValueError, match="piece 3"):
        share_out(10_000, make_worker, CPU)
    assert len(done) < 10_000 - 1
    assert torch.get_num_threads() == threads


@pytest.mark.usefixtures("threads")
def test_the_hook_is_called_by_the_caller_and_ends_the_work() -> None:
    callers = []

    def stop() -> None:
        callers.append(threading.get_ident())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        share_out(50, lambda _: lambda _: None, CPU, stop)
    assert callers == [threading.get_ident()]


def test_the_hook_is_called_after_every_piece_of_the_calling_thread() -> None:
    before, done, calls = torch.get_num_threads(), [], []
    torch.set_num_threads(1)
    share_out(5, lambda _: done.append, CPU, lambda: calls.append(len(done)))
    torch.set_num_threads(before)
    assert calls == [0, 1, 2, 3, 4, 5]


@pytest.mark.usefixtures("threads")
def test_tensors_of_inference_mode_can_be_written_from_every_thread() -> None:
    together = threading.Barrier(torch.get_num_threads(), timeout=30)

    def make_worker(_: int) -> Callable[[int], None]:
        def work(number: int) -> None:
            together.wait()
            found[number] = number

        return work

    with torch.inference_mode():
        found = torch.zeros(torch.get_num_threads())
        share_out(len(found), make_worker, CPU)
    assert found.tolist() == list(range(len(found)))

"""Pieces of work shared out among threads, each of which computes on one core.

PyTorch shares every single operation among the cores. For a chain of operations on a piece that fits the cache of one
core it is better to share out the pieces: no thread waits between operations, and no value changes core.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch

Hook = Callable[[], None]
Worker = Callable[[int], None]


def share_out(
    count: int, make_worker: Callable[[int], Worker], device: torch.device, between_chunks: Hook | None = None
) -> None:
    """Call workers with the numbers below `count`, each once; on a CPU from `torch.get_num_threads()` threads.

    What is computed does not depend on the number of threads, as long as the pieces do not. No gradient is recorded.

    Args:
        make_worker: called once in every thread with its number, so that each has memory of its own to work in.
        between_chunks: called by the calling thread at first and after its pieces; what it raises ends the work.
    """
    if between_chunks is not None:
        between_chunks()
    numbers = iter(range(count))  # whichever thread is free takes the next
    failures: list[BaseException] = []
    inference = (
        torch.is_inference_mode_enabled()
    )  # a mode of each thread, without which such tensors stay closed

    def work(thread: int, hook: Hook | None) -> None:
        try:
            with torch.inference_mode(inference), torch.no_grad():
                worker = make_worker(thread)
                for number in numbers:
                    if failures:
                        return
                    worker(number)
                    if hook is not None:
                        hook()
        except BaseException as failure:  # raised again below, in the calling thread
            failures.append(failure)

    def work_beside(thread: int) -> None:
        torch.set_num_threads(1)
        work(thread, None)

    threads = torch.get_num_threads() if device.type == "cpu" else 1
    helpers = [threading.Thread(target=work_beside, args=(n,)) for n in range(1, min(threads, count))]
    for helper in helpers:
        helper.start()
    if device.type == "cpu":
        torch.set_num_threads(1)  # of this thread only
    try:
        work(0, between_chunks)
    finally:
        for helper in helpers:
            helper.join()
        if device.type == "cpu":
            torch.set_num_threads(threads)
    if failures:
        raise failures[0]

"""A task's life: steps while polled, one ending, and nothing after it."""

from __future__ import annotations

import time

import pytest

from PDDRegistrationLib.task import WAITING, Callbacks, Task


class Recorder:
    """Callbacks that remember."""

    def __init__(self):
        self.calls = []
        self.callbacks = Callbacks(
            onProgress=lambda progress: self.calls.append(("progress", progress.fraction)),
            onFinished=lambda outputs: self.calls.append(("finished", outputs)),
            onFailed=lambda error: self.calls.append(("failed", str(error))),
            onCancelled=lambda: self.calls.append(("cancelled", None)),
        )

    def endings(self):
        return [call for call in self.calls if call[0] != "progress"]


class Loop:
    """An event loop by hand."""

    def __init__(self):
        self.pending = []

    def later(self, _milliseconds, action):
        self.pending.append(action)

    def turn(self):
        actions, self.pending = self.pending, []
        for action in actions:
            action()


def counting(closed, steps=3, pause=0.0):
    def work(task):
        try:
            for number in range(steps):
                task.tell("count", number / steps, f"step {number}")
                time.sleep(pause)
                yield WAITING
            return "result"
        finally:
            closed.append(True)

    return work


def test_a_task_polled_to_its_end_gives_its_result_once():
    recorder, closed = Recorder(), []
    task = Task(counting(closed), recorder.callbacks)
    polls = 0
    while not task.poll():
        polls += 1
    assert (polls, task.state, task.outputs) == (3, "finished", "result")
    assert task.poll()
    task.cancel()
    assert recorder.endings() == [("finished", "result")]
    assert closed == [True]
    assert task.progress.fraction == 1.0


def test_cancel_closes_the_work_at_once():
    recorder, closed = Recorder(), []
    task = Task(counting(closed), recorder.callbacks)
    task.poll()
    task.cancel()
    task.cancel()
    assert closed == [True]
    assert (task.state, recorder.endings()) == ("cancelled", [("cancelled", None)])


def test_cancel_before_the_first_poll_never_starts_the_work():
    recorder, closed = Recorder(), []
    task = Task(counting(closed), recorder.callbacks)
    task.cancel()
    assert closed == []
    assert recorder.endings() == [("cancelled", None)]


def test_cancel_from_within_a_progress_callback_ends_the_task():
    ended = []
    task = Task(
        counting([]),
        Callbacks(onProgress=lambda _: task.cancel(), onCancelled=lambda: ended.append(True)),
    )
    assert task.poll()
    assert (task.state, ended) == ("cancelled", [True])


def test_an_interrupted_task_is_over():
    """Ctrl+C is no error of the work; polled again, it must not pass for finished."""
    recorder, closed = Recorder(), []

    def interrupted(task):
        yield from counting(closed, steps=1)(task)
        raise KeyboardInterrupt

    task = Task(interrupted, recorder.callbacks)
    task.poll()
    with pytest.raises(KeyboardInterrupt):
        task.poll()
    assert task.poll()
    assert (task.state, closed) == ("cancelled", [True])
    assert recorder.endings() == [("cancelled", None)]


def test_an_exception_in_the_work_is_handed_over_and_not_raised():
    recorder = Recorder()

    def work(_task):
        yield WAITING
        raise ValueError("broken")

    task = Task(work, recorder.callbacks)
    while not task.poll():
        pass
    assert recorder.endings() == [("failed", "broken")]
    assert isinstance(task.error, ValueError)


def test_an_event_loop_polls_the_task_until_its_end_and_then_leaves_it():
    loop, recorder = Loop(), Recorder()
    Task(counting([]), recorder.callbacks, loop)
    turns = 0
    while loop.pending:
        loop.turn()
        turns += 1
    assert recorder.endings() == [("finished", "result")]
    assert turns == 4


def test_one_poll_keeps_to_its_budget_of_time():
    def work(_task):
        while True:
            time.sleep(0.005)
            yield

    task = Task(work)
    began = time.perf_counter()
    assert not task.poll()
    assert time.perf_counter() - began < 0.09
    task.cancel()


def test_progress_never_goes_back_and_tells_the_time():
    told = []

    def work(task):
        for fraction in (0.01, 0.5, 0.2, 0.8):
            time.sleep(0.002)
            task.tell("stage", fraction, "message")
        yield

    task = Task(work, Callbacks(onProgress=told.append))
    task.poll()
    assert [progress.fraction for progress in told] == [0.01, 0.5, 0.5, 0.8]
    assert told[0].remaining is None
    half = told[1]
    assert half.remaining == pytest.approx(half.elapsed)


def test_warnings_are_kept_in_order():
    def work(task):
        task.log("warning", "first")
        task.log("info", "by the way")
        task.log("warning", "second")
        yield

    task = Task(work)
    task.poll()
    assert task.messages == ["first", "second"]


def test_polling_from_within_a_callback_does_nothing():
    inside = []
    task = Task(counting([], steps=1), Callbacks(onProgress=lambda _: inside.append(task.poll())))
    while not task.poll():
        pass
    assert inside == [False]

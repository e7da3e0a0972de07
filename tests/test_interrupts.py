"""Ctrl-C while a run trains: never swallowed, obeyed between batches, and no handler is left behind."""

import signal
import threading

import pytest

from fireprop import training
from fireprop.ranks import Ranks
from fireprop.recipes import configure
from fireprop.training.interrupts import Interrupts, watched

EPOCHS = 4


@pytest.fixture(autouse=True)
def interruptible():
    """Python's own handler, also where the tests are started with the signal ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Swallowing:
    """Has a destructor in which Ctrl-C comes: what is raised there is printed and forgotten."""

    def __del__(self):
        signal.raise_signal(signal.SIGINT)


def in_a_destructor():
    Swallowing()


def at(epoch, done, act, seen):
    """A report that does something after a batch, and notes every batch."""

    def report(progress):
        if progress.metrics is None or progress.metrics.epoch < progress.epoch:
            seen.append((progress.epoch, progress.done))
            if seen[-1] == (epoch, done):
                act()

    return report


def train(path, act, done, seen):
    """Two batches in an epoch; `act` after batch `done` of the second epoch."""
    run = training.start("xor", path, epochs=EPOCHS, batch_size=2)
    training.train(run, report=at(2, done, act, seen))


def test_ctrl_c_in_a_destructor_ends_training_after_the_batch(tmp_path):
    seen = []
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", in_a_destructor, 1, seen)
    assert seen == [(1, 0), (1, 1), (1, 2), (2, 1)]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_that_is_swallowed_while_kernels_compile_ends_training_before_the_first_batch(tmp_path):
    seen, run = [], training.start("xor", tmp_path / "run", epochs=EPOCHS, batch_size=2)
    with pytest.raises(KeyboardInterrupt):
        training.train(run, report=at(1, 0, in_a_destructor, seen))
    assert seen == [(1, 0)]


def test_the_epoch_that_has_just_ended_is_saved(tmp_path):
    def report(progress):
        if progress.metrics and progress.metrics.epoch == progress.epoch == 2:
            signal.raise_signal(signal.SIGINT)

    run = training.start("xor", tmp_path / "run", epochs=EPOCHS)
    with pytest.raises(KeyboardInterrupt):
        training.train(run, report=report)
    assert len(run.load_checkpoint()["metrics"]) == 2
    training.train(run, resume=True)
    assert len(run.load_checkpoint()["metrics"]) == EPOCHS


def test_a_second_ctrl_c_interrupts_at_once(tmp_path):
    seen, reached = [], []

    def twice():
        signal.raise_signal(signal.SIGINT)
        reached.append("first")
        signal.raise_signal(signal.SIGINT)
        reached.append("second")

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", twice, 1, seen)
    assert reached == ["first"]


def test_the_same_press_passed_on_by_a_launcher_counts_once():
    with watched(Ranks(0, 2)) as interrupts, interrupts.deferred():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()


@pytest.mark.parametrize("handler", [signal.SIG_IGN, lambda *_: None])
def test_another_handler_stays_as_it_is(tmp_path, handler):
    signal.signal(signal.SIGINT, handler)
    seen = []
    train(tmp_path / "run", lambda: signal.raise_signal(signal.SIGINT), 1, seen)
    assert seen[-1] == (EPOCHS, 2)
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_thread_of_its_own_trains_without_a_handler():
    found = []

    def work():
        with watched(Ranks()) as interrupts:
            found.append((signal.getsignal(signal.SIGINT), interrupts.came))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(signal.default_int_handler, False)]


def test_what_nobody_watches_never_came():
    Interrupts().check()


def test_a_trainer_that_was_interrupted_is_of_use_again(tmp_path):
    plan = configure("xor", epochs=EPOCHS, batch_size=2)
    trainer = training.Trainer.of(plan, plan.load())
    with pytest.raises(KeyboardInterrupt):
        training.fit(trainer, tmp_path / "run", report=at(2, 1, in_a_destructor, []))
    assert trainer.evaluate(trainer.splits.test).loss > 0.0
    assert trainer.run_epoch().epoch == 2

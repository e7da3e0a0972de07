"""Training in several processes: as one process trains, to rounding, and when one process fails all end."""

import contextlib
import itertools
import json
import os
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import BatchSampler, SequentialSampler

import fireprop
from fireprop import ranks, tasks, training
from fireprop.datasets import SpikeDataset
from fireprop.ranks import ALONE, RankError, Ranks, launched
from fireprop.runs import RunFolder
from fireprop.training.agreement import require_same_config, require_same_data, require_same_state

TOGETHER = Path(__file__).with_name("together.py")

# 4 samples in a batch of 3 and one of 1: of the latter, all processes but the first have none. The steps are so large
# that the guard halves some.
GUARDED = "train xor --epochs 6 --batch-size 3 --lr 2 --follow 1 --guard".split()
FORWARD = "train xor --epochs 6 --batch-size 3 --gradient forward".split()
KINDS = {"guarded": GUARDED, "forward": FORWARD}
HALF = "killed in epoch 2"
DIFFERENT = {
    "other labels": "rank 1 differs from rank 0 in the labels of the training part: give all ranks the same data",
    "other order": "rank 1 differs from rank 0 in the order of the training samples: give all ranks the same data",
    "one sample less": "rank 1 differs from rank 0 in the number of training samples (3 instead of 4): give all",
    "another seed": "rank 1 differs from rank 0 in the setting seed (1 instead of 0): start all ranks with the same",
    "another option": "rank 1 differs from rank 0 in the setting seed (1 instead of 0): start all ranks with the same",
}


def launches():
    for kind, number in (("guarded", 1), ("guarded", 2), ("guarded", 3), ("forward", 1), ("forward", 2)):
        name = f"{kind}-{number}"
        yield {"name": name, "number": number, "arguments": [*KINDS[kind], "--out", name]}
    for fault in ("spikes", "killed", "disk", HALF):
        yield {"name": fault, "number": 2, "arguments": [*GUARDED, "--out", fault], "fault": fault}
    for fault in DIFFERENT:
        yield {"name": fault, "number": 2, "arguments": [*GUARDED, "--out", fault], "fault": fault}
    for number in (1, 3):
        name = f"resumed-{number}"
        yield {"name": name, "number": number, "arguments": ["train", "--resume", name], "copy_of": HALF}
    refused = {
        "keep-alive": ["train", "xor", "--keep-alive", "0.5", "--out", "new"],
        "taken": ["train", "xor", "--out", "guarded-1"],
        "unknown": ["train", "yinyang", "--out", "new"],
        "infinite": ["train", "xor", "--lr", "1e300", "--out", "infinite"],
    }
    for name, arguments in refused.items():
        yield {"name": name, "number": 2, "arguments": arguments}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("together")


@pytest.fixture(scope="module")
def outcomes(folder):
    command = [sys.executable, TOGETHER, folder]
    done = subprocess.run(command, input=json.dumps([*launches()]), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def state_of(path):
    return RunFolder.open(path).load_checkpoint()


def distance(one, other):
    """The largest difference of any weight, best ones included."""
    parts = [state["weights"] | {f"best {k}": v for k, v in state["best_weights"].items()} for state in (one, other)]
    assert parts[0].keys() == parts[1].keys()
    return max((a - parts[1][name]).abs().max().item() for name, a in parts[0].items())


def assert_same_run(one, other, tolerance):
    """Weights, random state and metrics, to rounding; counts to the last one."""
    assert distance(one, other) <= tolerance
    assert torch.equal(one["generator"], other["generator"])
    assert one["best_epoch"] == other["best_epoch"]
    for row, same in zip(one["metrics"], other["metrics"], strict=True):
        assert row.keys() == same.keys()
        for name in row.keys() - {"samples_per_second"}:
            # the sensitivity of a spike that nearly grazes grows without bound
            bound = 1e-6 if name == "largest_sensitivity" else 1e-10
            assert same[name] == (pytest.approx(row[name], rel=bound) if isinstance(row[name], float) else row[name])
            assert type(same[name]) is type(row[name])


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "number"), [("guarded", 2), ("guarded", 3), ("forward", 2)])
def test_processes_train_as_one_process_does(folder, outcomes, kind, number):
    assert outcomes[f"{kind}-{number}"]["codes"] == [0] * number
    # a batch is summed in another order
    assert_same_run(state_of(folder / f"{kind}-1"), state_of(folder / f"{kind}-{number}"), 1e-12)


@pytest.mark.slow
def test_the_guard_has_something_to_do_in_these_runs(folder, outcomes):
    rows = state_of(folder / "guarded-1")["metrics"]
    assert sum(row["steps_shortened"] for row in rows) > 0
    assert sum(row["spikes_created"] + row["spikes_deleted"] for row in rows) > 0


@pytest.mark.slow
def test_one_folder_has_everything_and_one_process_speaks(folder, outcomes):
    names = [{path.name for path in (folder / f"guarded-{number}").iterdir()} for number in (1, 3)]
    assert names[0] == names[1] == {"config.json", "metrics.csv", "result.json", "checkpoint.pt"}
    first, *others = outcomes["guarded-3"]["stdout"]
    assert "test accuracy" in first
    assert others == ["", ""]
    assert outcomes["guarded-3"]["stderr"][1:] == ["", ""]
    results = [RunFolder.open(folder / f"guarded-{number}").read_result() for number in (1, 3)]
    for name in ("test_accuracy", "validation_accuracy", "best_epoch", "epochs", "spikes_per_sample"):
        assert results[0][name] == results[1][name]


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 3])
def test_a_run_of_two_processes_is_resumed_by_any_number(folder, outcomes, number):
    assert outcomes[HALF]["codes"][0] == 9
    assert len(state_of(folder / HALF)["metrics"]) == 1
    assert outcomes[f"resumed-{number}"]["codes"] == [0] * number
    assert_same_run(state_of(folder / "guarded-1"), state_of(folder / f"resumed-{number}"), 1e-12)


def lines_of(outcome):
    """What all processes say on stderr as an answer: a line each, without what a bar leaves behind."""
    return [line for text in outcome["stderr"] for line in text.splitlines() if line.startswith("fireprop: ")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "line"),
    [
        ("spikes", "too many spikes"),
        ("killed", "rank 0 of 2 lost contact with another rank, which was killed or hangs"),
        ("disk", "the disk is full"),
    ],
)
def test_a_process_that_fails_ends_all_with_one_line(outcomes, fault, line):
    outcome = outcomes[fault]
    (said,) = lines_of(outcome)
    assert line in said
    assert "Traceback" not in "".join(outcome["stderr"])
    assert outcome["stdout"] == ["", ""]
    assert any(code not in (0, None) for code in outcome["codes"])
    assert outcome["seconds"] < 20  # it is found when the connection closes, not after half an hour of silence


@pytest.mark.slow
@pytest.mark.parametrize("fault", DIFFERENT)
def test_processes_that_differ_train_no_epoch_and_say_in_one_line_what_differs(folder, outcomes, fault):
    outcome = outcomes[fault]
    (said,) = lines_of(outcome)
    assert DIFFERENT[fault] in said
    assert "Traceback" not in "".join(outcome["stderr"])
    assert outcome["codes"] != [0, 0]
    assert not (folder / fault / "checkpoint.pt").exists()


@dataclass(frozen=True)
class Second(Ranks):
    """Rank 1 of 2 that trains alone: `gather` gives it what rank 0 has said before."""

    said: list[Any] = field(default_factory=list)

    def gather(self, value):
        self.said.append(value)
        return [self.said[0], value]


def compared(check, first, second):
    """Let rank 0 have `first`, rank 1 `second`."""
    ranks = Second(1, 2)
    check(ranks, *first)
    check(ranks, *second)


DATA = (
    fireprop.Spikes.from_latencies(torch.tensor([[0.5, 1.0], [0.25, torch.inf], [0.75, 2.0]])),
    torch.tensor([0, 1, 1]),
)


def splits_of(spikes, labels, validation=None):
    train = SpikeDataset(spikes, labels)
    return (tasks.Splits(train=train, validation=validation, test=SpikeDataset(*DATA)),)


@pytest.mark.parametrize(
    ("spikes", "labels", "words"),
    [
        (DATA[0], [1, 0, 1], "labels of the training part"),
        (DATA[0], [0, 1, 0], "labels of the training part"),
        (DATA[0][[1, 0, 2]], [1, 0, 1], "order of the training samples"),
        (DATA[0][:2], [0, 1], r"number of training samples \(2 instead of 3\)"),
        (DATA[0][[0, 1, 0]], [0, 1, 1], "times or units of spikes of the training part"),
        (DATA[0].shift(2**-52), [0, 1, 1], "times or units of spikes of the training part"),
        (DATA[0][[1, 1, 1]], [0, 1, 1], r"number of spikes of the training part \(3 instead of 5\)"),
    ],
)
def test_what_differs_between_data_has_its_name(spikes, labels, words):
    compared(require_same_data, splits_of(*DATA), splits_of(*DATA))
    with pytest.raises(RankError, match=f"^rank 1 differs from rank 0 in the {words}: give all ranks the same data$"):
        compared(require_same_data, splits_of(*DATA), splits_of(spikes, torch.tensor(labels)))
    with pytest.raises(RankError, match=r"number of validation samples \(3 instead of 0\)"):
        compared(require_same_data, splits_of(*DATA), splits_of(*DATA, SpikeDataset(*DATA)))


def test_the_folder_of_the_data_may_differ_and_no_other_setting():
    config = tasks.default_config("mnist", data="here")
    compared(require_same_config, [config], [replace(config, data="there")])
    with pytest.raises(RankError, match=r"setting lr \(0.5 instead of 0.003\): start all ranks with the same command"):
        compared(require_same_config, [config], [replace(config, lr=0.5)])


def test_ranks_that_go_on_from_different_states_are_refused():
    def state(change=lambda trainer: None):
        config = tasks.default_config("xor")
        trainer = training.Trainer.of(config, config.load())
        trainer.run_epoch()
        change(trainer)
        return trainer.epoch, trainer.net, trainer.state_dict()

    def nudge(trainer):
        with torch.no_grad():
            trainer.net[0].weight[0, 0] += 2**-40

    def forget(trainer):
        trainer.optimizer.state[trainer.net[0].weight]["exp_avg"].zero_()

    compared(require_same_state, state(), state())
    for change, words in (
        (nudge, "weights"),
        (forget, "state of the optimiser"),
        (lambda trainer: trainer.generator.manual_seed(9), "random state that orders batches"),
        (lambda trainer: trainer.metrics.clear(), r"number of finished epochs \(0 instead of 1\)"),
    ):
        with pytest.raises(RankError, match=f"in the {words}: load the same checkpoint in all ranks"):
            compared(require_same_state, state(), state(change))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("keep-alive", "keep_alive = 0.5: homeostasis needs one process, but there are 2"),
        ("taken", "guarded-1 exists and is not empty"),
        ("unknown", "'yinyang' is not one of"),
        ("infinite", "weights must be finite"),
    ],
)
def test_a_mistake_gets_one_line_of_all_processes_together(folder, outcomes, name, line):
    (said,) = lines_of(outcomes[name])
    assert line in said
    assert "Traceback" not in "".join(outcomes[name]["stderr"])
    assert any(code not in (0, None) for code in outcomes[name]["codes"])
    assert not (folder / "new").exists()


def trained(change=lambda weight: weight, **settings):
    """The state of a run in this process, of which the first weights are changed."""
    config = tasks.default_config("yin-yang", **settings)
    trainer = training.Trainer.of(config, config.load())
    with torch.no_grad():
        for weight in trainer.net.parameters():
            weight.copy_(change(weight))
    for _ in range(config.epochs):
        trainer.run_epoch()
    return trainer.state_dict()


@pytest.mark.slow
def test_torchrun_trains_from_the_command_line_as_one_process_does(tmp_path):
    path = tmp_path / "run"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    options = "--hidden 20 --epochs 2 --batch-size 300 --json --out".split()  # the last batch has 200 samples
    command = [*torchrun, "-m", "fireprop", "train", "yin-yang", *options, path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    result = RunFolder.open(path).read_result()
    assert json.loads(done.stdout) == {**result, "run": str(path)}
    assert (path / "decision_map.png").exists()
    settings = {"hidden": (20,), "epochs": 2, "batch_size": 300}
    one = trained(**settings)
    # What rounding can do: a run whose first weights differ in their last bit ends farther away.
    nudged = trained(lambda weight: torch.nextafter(weight, torch.full_like(weight, torch.inf)), **settings)
    assert_same_run(one, RunFolder.open(path).load_checkpoint(), distance(one, nudged))
    assert distance(one, nudged) < 1e-9


@pytest.mark.parametrize(("size", "number"), [*itertools.product((0, 1, 2, 7, 12), (1, 2, 3, 5))])
def test_shares_are_a_batch_cut_into_pieces_of_nearly_equal_length(size, number):
    batch = list(range(size))
    shares = [Ranks(index, number).share(batch) for index in range(number)]
    assert list(itertools.chain(*shares)) == batch
    lengths = [len(share) for share in shares]
    assert lengths == sorted(lengths, reverse=True)
    assert max(lengths) - min(lengths) <= 1


def test_the_mean_over_weighted_shares_is_the_mean_over_the_batch(rng):
    losses = rng.normal(size=7)
    three = [Ranks(index, 3) for index in range(3)]
    means = [rank.weight(len(rank.share(losses)), of=7) * rank.share(losses).mean() for rank in three]
    assert sum(means) / 3 == pytest.approx(losses.mean(), rel=1e-14)


def test_every_process_has_a_share_of_every_batch():
    batches = BatchSampler(SequentialSampler(range(7)), 3, drop_last=False)
    shares = [Ranks(index, 2).batches(batches) for index in range(2)]
    assert [list(share) for share in shares] == [[[0, 1], [3, 4], [6]], [[2], [5], []]]
    assert len(shares[0]) == len(shares[1]) == 3


def test_one_process_alone_communicates_with_nobody(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with launched() as found:
        assert found is ALONE
    module = torch.nn.Linear(1, 1)
    assert ALONE.parallel(module) is module
    assert ALONE.sum([1, 2.5]) == ALONE.largest([1, 2.5]) == [1, 2.5]
    assert ALONE.from_first(lambda: "found") == "found"
    assert ALONE.weight(3, of=3) == 1.0


@pytest.mark.parametrize(("number", "reason"), [("2", "environment variable RANK expected, but not set"), ("many", "")])
def test_processes_that_nobody_has_launched_do_not_meet(monkeypatch, number, reason):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setenv("WORLD_SIZE", number)
    with pytest.raises(RankError, match=f"WORLD_SIZE is set, but .*{reason}.*: start them with torchrun, or unset"):
        with launched():
            raise AssertionError("nobody is there")


# --- the port of rank 0 ---


@pytest.fixture
def taken(monkeypatch):
    """A function that lets another program have the port of rank 0, and do something with whoever connects."""
    with contextlib.ExitStack() as stack:

        def take(rank, greet=lambda connection: None):
            server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            port = str(server.getsockname()[1])
            launch = {"WORLD_SIZE": "2", "RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            for name, value in launch.items():
                monkeypatch.setenv(name, value)

            def serve():
                with contextlib.suppress(OSError):
                    while True:
                        connection, _ = server.accept()
                        stack.callback(connection.close)
                        greet(connection)

            threading.Thread(target=serve, daemon=True).start()
            return port

        yield take


PROGRAMS = {
    "never answers": lambda connection: None,
    "hangs up": lambda connection: connection.close(),
    "speaks first": lambda connection: connection.sendall(b"220 mail\r\n"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", PROGRAMS)
def test_a_rank_whose_rank_0_is_another_program_says_so_in_time(taken, monkeypatch, kind):
    monkeypatch.setattr(ranks, "ANSWER", 1.0)
    port, start = taken("1", PROGRAMS[kind]), time.monotonic()
    with pytest.raises(RankError, match=rf"the program at 127.0.0.1:{port} .* is not rank 0, .* another MASTER_PORT"):
        with launched():
            raise AssertionError("nobody is there")
    assert time.monotonic() - start < 10.0


def test_rank_0_says_that_its_port_is_taken(taken):
    port = taken("0")
    with pytest.raises(RankError, match=f"another program uses port {port} of this host .*: give all ranks another"):
        with launched():
            raise AssertionError("nobody is there")


@pytest.mark.slow
def test_ranks_started_by_hand_meet_whoever_comes_first():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    code = "from fireprop.ranks import launched\nwith launched() as ranks: assert ranks.gather(ranks.index) == [0, 1]"
    launch = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    first = subprocess.Popen(
        [sys.executable, "-c", code], env={**launch, "RANK": "1"}, stderr=subprocess.PIPE, text=True
    )
    done = subprocess.run([sys.executable, "-c", code], env={**launch, "RANK": "0"}, capture_output=True, text=True)
    _, said = first.communicate(timeout=120)
    assert (done.returncode, first.returncode) == (0, 0), (done.stderr, said)


# What `refused` says of trainers whose networks cannot train in two processes.
NETWORKS = """
import torch
from fireprop import tasks, training
from fireprop.ranks import launched

def refused(ranks, change, seed=0):
    config = tasks.default_config("xor")
    net = config.network(torch.Generator().manual_seed(seed))
    change(net)
    try:
        training.Trainer(net, config.load(), config.objective(), config, ranks=ranks).run_epoch()
    except Exception as error:
        print(f"{type(error).__name__}: {error}")

with launched() as ranks:
    refused(ranks, lambda net: None, seed=ranks.index)
    refused(ranks, lambda net: net.register_parameter("spare", torch.nn.Parameter(torch.ones(2))))
    refused(ranks, lambda net: net.requires_grad_(False))
    refused(ranks, lambda net: net[0].requires_grad_(False))
"""


@pytest.mark.slow
def test_a_network_that_cannot_train_in_several_processes_is_named():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    launch = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = [sys.executable, "-c", NETWORKS]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, env={**launch, "RANK": str(rank)}, **streams) for rank in range(2)]
    for process in processes:
        said, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert said.splitlines() == [
            "RankError: rank 1 differs from rank 0 in the weights: draw them by the same seed in all ranks",
            "ValueError: net.spare gets no gradient from the loss: with several processes, call "
            "net.spare.requires_grad_(False), or use it",
            "ValueError: net has no parameter that requires a gradient: call net.requires_grad_(True)",
        ]

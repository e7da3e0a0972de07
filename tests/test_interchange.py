"""The commands export and import: a trained run as a file, and a file as a network that answers."""

import json
import re
import sys

import nir
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from fireprop.cli import app
from fireprop.interop.nir import from_nir, read_nir, to_nir
from fireprop.nn import LI, LIF, Network, Sequential
from fireprop.runs import RunError, RunFolder, write_new
from fireprop.tasks import default_config, load_splits
from fireprop.training import Trainer, load_network, load_trained


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def printed(*arguments):
    result = call(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def mistake(*arguments):
    """The one line that a user's mistake gets on stderr."""
    result = call(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    return result.stderr


def trained(path, task, **settings):
    """A run folder after one epoch, without its pictures."""
    config = default_config(task, epochs=1, **settings)
    folder = RunFolder.create(path)
    folder.write_config(config.to_dict())
    trainer = Trainer.of(config, load_splits(config))
    trainer.run_epoch()
    folder.save_checkpoint(trainer.state_dict())
    return path


@pytest.fixture(scope="module", params=["float64", "float32"])
def run(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("interchange") / "run"
    return trained(path, "yin-yang", hidden=(40,), batch_size=50, dtype=request.param)


def test_a_run_comes_back_from_its_file_with_the_same_bits_of_spikes(run, tmp_path):
    file = tmp_path / "net.nir"
    assert printed("export", run, file, "--to", "nir") == f"{file}\n"
    trainer = load_trained(RunFolder.open(run))
    trainer.use_best()
    back = from_nir(read_nir(file))
    inputs = trainer.splits.test.spikes
    mine, theirs = (net.record(inputs, t_end=4.0) for net in (trainer.net, back))
    for a, b in zip(mine, theirs, strict=True):
        assert a.n_spikes > 1000
        assert torch.equal(a.times, b.times)
        assert torch.equal(a.units, b.units)
        assert torch.equal(a.offsets, b.offsets)
    assert [p.dtype for p in back.parameters()] == [p.dtype for p in trainer.net.parameters()]


def test_the_file_has_the_best_weights_and_needs_no_data(run, tmp_path, monkeypatch):
    state = RunFolder.open(run).load_checkpoint()
    changed = {name: 2.0 * weight for name, weight in state["best_weights"].items()}
    monkeypatch.setattr(RunFolder, "load_checkpoint", lambda _: {**state, "best_weights": changed})
    monkeypatch.setattr("fireprop.tasks.config.load_splits", None)
    printed("export", run, tmp_path / "net.nir")
    for layer, name in zip(from_nir(read_nir(tmp_path / "net.nir")), ("0.weight", "1.weight"), strict=True):
        assert torch.equal(layer.weight.detach(), changed[name])


def test_the_accuracy_of_a_file_is_that_of_its_run(run, tmp_path):
    printed("export", run, tmp_path / "net.nir")
    expected = json.loads(printed("evaluate", run, "--json"))["test"]["accuracy"]
    assert 0.4 < expected < 1.0
    for data in ("yin-yang", run):
        found = json.loads(printed("import", tmp_path / "net.nir", "--evaluate", data, "--json"))
        assert found["test_accuracy"] == expected
        assert found["test_samples"] == 1000
    assert f"test accuracy {expected:.2%} (1000 samples of" in printed(
        "import", tmp_path / "net.nir", "--evaluate", run
    )


def test_a_file_in_another_unit_answers_in_the_unit_of_the_task(run, tmp_path):
    printed("export", run, tmp_path / "net.nir")
    graph = read_nir(tmp_path / "net.nir")
    for node in graph.nodes.values():
        if isinstance(node, nir.CubaLIF):
            for name in ("tau_mem", "tau_syn"):
                setattr(node, name, 1000.0 * getattr(node, name))
            node.w_in = 1000.0 * node.w_in
            node.r = 1000.0 * node.r
        elif isinstance(node, nir.Linear):
            node.weight = node.weight / 1000.0
    nir.write(tmp_path / "ms.nir", graph)
    first, second = (
        json.loads(printed("import", tmp_path / name, "--evaluate", run, "--json", "--time-unit", unit))
        for name, unit in (("net.nir", 1.0), ("ms.nir", 0.001))
    )
    assert second["test_accuracy"] == pytest.approx(first["test_accuracy"], abs=0.002)
    assert second["units"][0]["tau_mem"] == pytest.approx([1.0, 1.0])


def test_units_and_connections_are_printed_with_their_constants(tmp_path, rng):
    net = Network(4)
    net.add("excitatory", 6, tau_mem=torch.linspace(1.0, 2.0, 6), bias=0.5)
    net.add("inhibitory", 3, tau_mem=0.5, v_threshold=0.75)
    mask = torch.ones(6, 4, dtype=torch.bool)
    mask[0, 1] = False
    net.connect("input", "excitatory", tau_syn=0.25, mask=mask, delay=0.125)
    net.connect("excitatory", "inhibitory", tau_syn=0.5, weight=torch.full((3, 6), 0.75).to_sparse())
    nir.write(tmp_path / "net.nir", to_nir(net))
    found = json.loads(printed("import", tmp_path / "net.nir", "--json"))
    one = {"name": "excitatory", "units": 6, "tau_mem": [1.0, 2.0], "v_threshold": [1.0, 1.0], "bias": [0.5, 0.5]}
    assert found["units"][0] == {**one, "i_start": None, "v_start": None}
    assert [row["units"] for row in found["units"]] == [6, 3]
    first, second = found["connections"]
    names = ("from", "to", "synapses", "tau_syn", "delay")
    assert [first[name] for name in names] == ["input", "excitatory", 23, [0.25, 0.25], [0.125, 0.125]]
    assert second == {"from": "excitatory", "to": "inhibitory", "synapses": 18, "tau_syn": [0.5, 0.5], "delay": None,
                      "weight": [0.75, 0.75]}  # fmt: skip
    table = printed("import", tmp_path / "net.nir")
    for text in ("excitatory", "1 to 2", "0.125", "23"):
        assert text in table


def test_a_recurrent_layer_and_a_read_out_are_printed(tmp_path):
    constants = {"tau_mem": 1.0, "tau_syn": 0.5}
    net = Sequential(LIF(4, 3, recurrent=True, delay_rec=0.25, **constants), LI(3, 2, **constants))
    nir.write(tmp_path / "net.nir", to_nir(net))
    found = json.loads(printed("import", tmp_path / "net.nir", "--json"))
    ends = [(row["from"], row["to"], row["delay"]) for row in found["connections"]]
    assert ends == [("input", "layer 0", None), ("layer 0", "layer 0", [0.25, 0.25]), ("layer 0", "layer 1", None)]
    assert found["units"][1]["v_threshold"] is None
    assert "layer 1" in printed("import", tmp_path / "net.nir")
    nir.write(tmp_path / "xor.nir", to_nir(Sequential(LI(2, 2, **constants))))
    assert "ends in a CubaLI, which does not fire" in mistake("import", tmp_path / "xor.nir", "--evaluate", "xor")


@pytest.mark.parametrize("readout", ["count", "li-max"])
def test_a_run_on_own_data_comes_back_with_its_accuracy(tmp_path, readout):
    rows = [f"{10 * (unit + label) + sample % 7},{unit},{sample},{label}" for sample in range(40) for unit in range(4)
            for label in [sample % 2]]  # fmt: skip
    (tmp_path / "events.csv").write_text("\n".join(["time,unit,sample,label", *rows]))
    run, file = tmp_path / "run", tmp_path / "net.nir"
    options = ("--readout", readout, "--hidden", 5, "--epochs", 1, "--out", run)
    assert call("train", tmp_path / "events.csv", *options).exit_code == 0
    expected = json.loads(printed("evaluate", run, "--json"))["test"]["accuracy"]
    printed("export", run, file)
    assert json.loads(printed("import", file, "--evaluate", run, "--json"))["test_accuracy"] == expected


def test_a_network_with_a_bias_is_evaluated_from_time_0(tmp_path):
    layer = LIF(2, 2, tau_mem=1.0, tau_syn=0.5, bias=2.0)
    nir.write(tmp_path / "net.nir", to_nir(layer))
    found = json.loads(printed("import", tmp_path / "net.nir", "--evaluate", "xor", "--json"))
    assert found["test_samples"] == 4


def test_what_is_refused_is_said_in_one_line(run, tmp_path, monkeypatch):
    file = tmp_path / "net.nir"
    printed("export", run, file)
    assert f"{file} exists: choose another name, or remove it first" in mistake("export", run, file)
    assert "is not the folder of a run" in mistake("export", tmp_path, tmp_path / "x.nir")
    assert "cannot write" in mistake("export", run, tmp_path / "gone" / "x.nir")
    assert "the network has 5 inputs and 3 outputs, but xor has 2 and 2" in mistake("import", file, "--evaluate", "xor")
    assert "task = 'gone': choose one of" in mistake("import", file, "--evaluate", "gone")
    assert "--data belongs to --evaluate" in mistake("import", file, "--data", tmp_path)
    assert "is the folder of a run, which has settings of its own" in mistake(
        "import", file, "--evaluate", run, "--recipe", "accurate"
    )
    assert f"{file}: spike_area = 'dt': give a number > 0" in mistake("import", file, "--spike-area", "dt")
    assert "v_start = 2.0 is not below v_threshold" in mistake("import", file, "--v-start", "2")
    assert f"cannot read {tmp_path / 'gone'}: No such file" in mistake("import", tmp_path / "gone")
    one = np.ones(3)
    nodes = {"in": nir.Input(np.array([3])), "a": nir.LIF(one, one, one, one), "b": nir.IF(one, one), "c": nir.I(one)}
    names = list(nodes)
    nir.write(
        file,
        nir.NIRGraph(nodes | {"out": nir.Output(np.array([3]))}, list(zip(names, [*names[1:], "out"], strict=True))),
    )
    said = mistake("import", file)
    assert f"{file}: node a is a LIF: its potential jumps at a spike" in said
    assert "(refused too: b (IF), c (I))" in said
    node = to_nir(LIF(2, 2, tau_mem=1.0, tau_syn=0.5))
    node.nodes["layer_0"].r = np.ones(2, complex)
    nir.write(file, node)
    assert f"{file}: node layer_0: r is torch.complex128: give real numbers" in mistake("import", file)
    monkeypatch.setitem(sys.modules, "nir", None)
    for line in (mistake("import", file), mistake("export", run, tmp_path / "x.nir")):
        assert 'needs nir, which is not installed: pip install "fireprop[nir]"' in line


def test_delays_per_synapse_and_checkpoints_of_other_runs_are_not_exported(run, tmp_path, monkeypatch):
    folder = RunFolder.open(run)
    state = folder.load_checkpoint()
    for changes, text in (
        ({"best_weights": {}}, "the checkpoint does not fit (Error(s) in loading state_dict"),
        ({"config": {**state["config"], "tau_mem": 2.0}}, "the checkpoint does not fit (it belongs to another config"),
        ({"config": 3}, "the checkpoint does not fit ("),
    ):
        monkeypatch.setattr(RunFolder, "load_checkpoint", lambda _, changes=changes: {**state, **changes})
        with pytest.raises(RunError, match=re.escape(text)):
            load_network(folder)
        assert text in mistake("export", run, tmp_path / "x.nir")
    monkeypatch.undo()
    late = trained(tmp_path / "late", "xor", hidden_delay=0.5)
    assert "layer 0: delay differs from synapse to synapse" in mistake("export", late, tmp_path / "x.nir")
    assert not (tmp_path / "x.nir").exists()


def test_a_new_file_is_never_written_over_another(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_new(tmp_path / "new", b"content")
    assert (tmp_path / "new").read_bytes() == b"content"
    for name in ("new", "link"):
        with pytest.raises(RunError, match="exists: choose another name"):
            write_new(tmp_path / name, b"other")
    assert (tmp_path / "new").read_bytes() == b"content"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "new"]

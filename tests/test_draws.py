"""Networks that draw random numbers themselves: evaluated, followed and resumed as if they did not."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from fireprop import Spikes, training
from fireprop.datasets import SpikeDataset
from fireprop.nn import LIF, Sequential, SpikeDropout, keep_positive
from fireprop.objectives import FirstSpike
from fireprop.plans import Settings, Splits
from fireprop.training import Trainer, pictures

TAUS = {"tau_mem": 1.0, "tau_syn": 0.5}


def data(scale=1.0):
    """Two classes: the first four channels fire later in the one."""
    labels = torch.arange(60) % 2
    times = torch.rand(60, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    late = (labels[:, None] == 0) * (torch.arange(8) < 4)
    whole = SpikeDataset(Spikes.from_latencies(scale * (times + late)), labels)
    return Splits(whole, whole, whole)


def dropping(generator=None):
    weights = torch.Generator().manual_seed(1)
    net = Sequential(
        SpikeDropout(0.5, generator=generator),
        LIF(8, 10, generator=weights, **TAUS),
        LIF(10, 2, generator=weights, **TAUS),
    )
    net[2].reset_parameters(gain=3.0, generator=weights)
    return net


def trainer(net, **settings):
    given = {"t_end": 5.0, "epochs": 4, "batch_size": 20, "lr": 0.02} | settings
    return Trainer(net, data(), FirstSpike(tau=0.2), Settings(**given))


def test_evaluation_drops_nothing_and_leaves_the_mode_of_each_module():
    made = trainer(dropping())
    made.net[2].eval()
    losses = {made.evaluate(made.splits.test).loss for _ in range(3)}
    assert [module.training for module in made.net] == [True, True, False]
    made.net.eval()
    assert losses == {made.evaluate(made.splits.test).loss}


@pytest.mark.parametrize("own", [False, True])
def test_a_step_that_changes_nothing_creates_and_deletes_nothing(own):
    generator = torch.Generator().manual_seed(2) if own else None
    made = trainer(dropping(generator), lr=1e-12, follow=1.0, guard=True)
    found = made.run_epoch()
    assert (found.spikes_created, found.spikes_deleted, found.labels_silenced, found.steps_shortened) == (0, 0, 0, 0)


@pytest.mark.parametrize("own", [False, True])
def test_a_network_with_dropout_resumes_to_the_bit(own, tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "draw_pictures", lambda run, trainer: [])

    def made():
        torch.manual_seed(3)
        return trainer(dropping(torch.Generator().manual_seed(4) if own else None))

    whole = made()
    training.fit(whole, tmp_path / "whole")

    def stop(now):
        if now.epoch == 2 and now.metrics and now.metrics.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.fit(made(), tmp_path / "cut", report=stop)
    again = made()
    torch.manual_seed(99)
    training.fit(again, tmp_path / "cut", resume=True)
    for name, weight in whole.net.state_dict().items():
        assert torch.equal(weight, again.net.state_dict()[name])


def test_a_relative_rate_moves_a_constant_by_its_logarithm_whatever_the_unit_of_time():
    taus = []
    for scale in (1e-3, 1.0, 1e3):
        weights = torch.Generator().manual_seed(1)
        tau = nn.Parameter(torch.tensor(1.05 * scale, dtype=torch.float64))
        layers = [
            LIF(n_in, n_out, tau_mem=tau_mem, tau_syn=0.5 * scale, generator=weights, dtype=torch.float64)
            for n_in, n_out, tau_mem in ((8, 10, tau), (10, 2, 1.0 * scale))
        ]
        keep_positive(layers[0], "tau_mem")
        made = Trainer(
            Sequential(*layers), data(scale), FirstSpike(tau=0.2 * scale),
            Settings(t_end=5.0 * scale, epochs=2, batch_size=20, lr=0.02, relative_lr=True),
        )  # fmt: skip
        made.run_epoch()
        taus.append(layers[0].tau_mem.item() / scale)
    assert abs(taus[1] - 1.05) > 0.01
    assert taus[0] == pytest.approx(taus[1], rel=1e-3)
    assert taus[2] == pytest.approx(taus[1], rel=1e-3)


def test_a_normalised_weight_is_trained_at_the_rate_of_weights():
    net = dropping()
    parametrizations.weight_norm(net[1])
    before = net[1].weight.detach().clone()
    trainer(net, constants_lr=1e-12).run_epoch()
    assert (net[1].weight - before).abs().max() > 1e-3


@pytest.mark.parametrize("setting", [{"max_spikes": 5}, {"max_sensitivity": 1.0}, {"gradient": "forward"}])
def test_a_setting_that_a_module_of_ones_own_does_not_get_is_refused(setting):
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = dropping()

        def forward(self, spikes, *, t_end):
            return self.inner(spikes, t_end=t_end)

    (name,) = setting
    with pytest.raises(ValueError, match=rf"{name} = .*: a Own is called as net\(inputs, t_end=t_end\)"):
        trainer(Own(), **setting)

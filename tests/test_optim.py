"""Adam without torch's wrappers is torch's Adam, and nobody waits for what they import."""

import contextlib
import subprocess
import sys
import threading

import pytest
import torch

from fireprop import torch_threads
from fireprop.optim import Adam


def parameters():
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(3, 4, generator=generator).requires_grad_()
    constant = torch.randn(2, generator=generator, dtype=torch.float64).requires_grad_()
    return [weight, constant]


def losses(optimizer, own, n_steps, generator):
    for _ in range(n_steps):
        optimizer.zero_grad()
        loss = sum((p * torch.randn(p.shape, generator=generator, dtype=p.dtype)).sum() ** 2 for p in own)
        loss.backward()
        optimizer.step()
        yield float(loss.detach())


@pytest.mark.parametrize("fused", [False, True])
def test_it_takes_the_steps_of_adam_of_torch_and_reads_its_states(fused):
    ended = []
    for before, after in ((torch.optim.Adam, torch.optim.Adam), (Adam, Adam), (torch.optim.Adam, Adam)):
        own, generator = parameters(), torch.Generator().manual_seed(2)
        groups = [{"params": own[:1]}, {"params": own[1:], "lr": 0.1}]
        first = before(groups, lr=0.01, fused=fused)
        schedule = torch.optim.lr_scheduler.ExponentialLR(first, 0.9)
        seen = list(losses(first, own, 5, generator))
        schedule.step()
        second = after(groups, lr=0.01, fused=fused)
        second.load_state_dict(first.state_dict())
        seen += list(losses(second, own, 5, generator))
        ended.append((seen, [p.tolist() for p in own]))
    assert ended[0] == ended[1] == ended[2]


def test_it_steps_without_gradients_and_tells_hooks_and_closures(rng):
    own = parameters()
    optimizer = Adam(own, lr=0.01)
    called = []
    optimizer.register_step_post_hook(lambda *_: called.append("hook"))

    def closure():
        optimizer.zero_grad()
        loss = sum(p.square().sum() for p in own)
        loss.backward()
        called.append("closure")
        return loss

    assert float(optimizer.step(closure).detach()) > 0.0
    assert called == ["closure", "hook"]
    assert all(p.is_leaf and p.requires_grad for p in own)


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_a_step_of_few_parameters_has_one_thread_of_torch_and_what_is_around_it_has_all(monkeypatch, many, fails):
    monkeypatch.setattr(torch_threads, "MANY", 1 if many else torch_threads.MANY)
    seen = []

    def step(self):
        seen.append(torch.get_num_threads())
        if fails:
            raise RuntimeError("as torch may")

    def closure():
        seen.append(torch.get_num_threads())

    monkeypatch.setattr(Adam, "_step", step)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    own = parameters()
    for p in own:
        p.grad = torch.ones_like(p)
    try:
        with contextlib.suppress(RuntimeError):
            Adam(own, fused=True).step(closure)
        assert seen == [2, 2 if many else 1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_step_beside_the_main_thread_leaves_the_threads_of_torch_alone(monkeypatch):
    seen = []
    monkeypatch.setattr(Adam, "_step", lambda _: seen.append(torch.get_num_threads()))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        thread = threading.Thread(target=Adam(parameters(), fused=True).step)
        thread.start()
        thread.join()
        assert seen == [2]
    finally:
        torch.set_num_threads(before)


def test_a_differentiable_step_is_one():
    found = []
    for kind in (torch.optim.Adam, Adam):
        scale = torch.tensor(2.0, requires_grad=True)
        p = torch.ones(3, requires_grad=True).clone()
        p.grad = scale * torch.arange(1.0, 4.0)
        kind([p], differentiable=True, eps=1.0).step()
        found.append(torch.autograd.grad(p.sum(), scale)[0].item())
    assert found[0] == found[1] != 0.0


def test_parameters_without_a_size_yet_have_no_gradient_and_take_no_step():
    Adam(torch.nn.LazyLinear(3).parameters()).step()


def test_training_does_not_wait_for_the_compiler_of_torch():
    script = """
import sys
from fireprop import tasks, training
config = tasks.default_config("xor", epochs=1)
trainer = training.Trainer.of(config, config.load())
trainer.run_epoch()
trainer.load_state_dict(trainer.state_dict())
print([name for name in ("torch._dynamo", "sympy") if name in sys.modules])
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"

"""Train with PyTorch Lightning: seeds, a checkpoint, a resume to the bit, and an exact gradient. Takes some seconds.

Needs `pip install "fireprop[lightning]"`. `fireprop.training` is the way that is supported best: it keeps run folders,
guards steps, warns of networks that run away, and draws plots. Use Lightning where your other models have it.
"""

import logging
import tempfile
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from fireprop import Spikes, encoding
from fireprop.datasets import SpikeDataset, yin_yang
from fireprop.losses import first_spike_cross_entropy, first_spike_predictions
from fireprop.nn import LIF, Sequential

SEED, EPOCHS = 0, 4
logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)


def part(n: int, seed: int) -> SpikeDataset:
    """Yin-Yang, a spike for each feature and one for all samples."""
    features, labels = yin_yang(n, seed=seed)
    return SpikeDataset(encoding.bias_spike(encoding.latency(features, t_range=(0.5, 2.0)), 1.0), labels)


TRAIN, VALIDATION = part(600, seed=42), part(300, seed=41)


class Classifier(pl.LightningModule):
    """The class is the output unit that fires first."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(SEED)
        options = {"tau_mem": 1.0, "tau_syn": 0.25, "dtype": torch.float64, "generator": generator}
        self.net = Sequential(LIF(5, 60, **options), LIF(60, 3, **options))
        torch.nn.init.normal_(self.net[0].weight, 1.5, 1.2, generator=generator)
        torch.nn.init.normal_(self.net[1].weight, 0.93, 0.1, generator=generator)

    def loss(self, batch: tuple[Spikes, torch.Tensor]) -> tuple[torch.Tensor, Spikes]:
        inputs, labels = batch
        out = self.net(inputs, t_end=4.0, stop="first_spikes", on_graze="zero")
        return first_spike_cross_entropy(out, labels, tau=0.0125), out

    def training_step(self, batch, number):
        loss, _ = self.loss(batch)
        self.log("loss", loss, on_step=False, on_epoch=True, batch_size=len(batch[1]))
        return loss

    def validation_step(self, batch, number):
        _, out = self.loss(batch)
        right = (first_spike_predictions(out) == batch[1]).double().mean()
        self.log("accuracy", right, batch_size=len(batch[1]))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.005)

    def train_dataloader(self):
        """Made anew in each epoch, with an order that depends on the epoch alone: so a resume changes no bit."""
        order = torch.randperm(len(TRAIN), generator=torch.Generator().manual_seed(SEED + self.current_epoch))
        return DataLoader(TRAIN, 32, sampler=order.tolist(), collate_fn=SpikeDataset.collate)

    def val_dataloader(self):
        return DataLoader(VALIDATION, 300, collate_fn=SpikeDataset.collate)

    def transfer_batch_to_device(self, batch, device, number):
        return batch  # Spikes stay where they are: fireprop computes on the CPU


def train(epochs: int, checkpoint: Path | None = None) -> tuple[Classifier, pl.Trainer]:
    """A classifier after so many epochs, from the start or from a checkpoint."""
    pl.seed_everything(SEED, verbose=False)  # of anything that draws from torch's own generator
    model = Classifier()
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        reload_dataloaders_every_n_epochs=1,
    )  # fmt: skip
    trainer.fit(model, ckpt_path=checkpoint)
    return model, trainer


whole, trainer = train(EPOCHS)
print(
    f"epoch {EPOCHS}: loss {trainer.callback_metrics['loss']:.3f}, accuracy {trainer.callback_metrics['accuracy']:.1%}"
)

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "half.ckpt"
    train(EPOCHS // 2)[1].save_checkpoint(path)
    resumed, _ = train(EPOCHS, path)
same = all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
print(f"resumed after epoch {EPOCHS // 2}: {'the same weights, bit for bit' if same else 'other weights'}")

batch = SpikeDataset.collate([TRAIN[k] for k in range(32)])
whole.zero_grad()
whole.loss(batch)[0].backward()
weight, step, sides = whole.net[0].weight, 1e-6, []
place = divmod(int(weight.grad.abs().argmax()), weight.shape[1])
with torch.no_grad():
    for change in (step, -2.0 * step):
        weight[place] += change
        sides.append(float(whole.loss(batch)[0]))
difference = (sides[0] - sides[1]) / (2.0 * step)
print(f"exact {float(weight.grad[place]):.8f}, central difference {difference:.8f}")

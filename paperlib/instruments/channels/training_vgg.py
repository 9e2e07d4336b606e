"""VGG on small images, really trained: weights for notebook 06 where ImageNet's are not available.

    weights, about = train_vgg(VggTraining(dataset="cifar10", epochs=20))
    network = vgg16(weights, image_shape=(3, 32, 32), batch_norm=True)

A training that was stopped goes on from the last finished epoch, to the same numbers.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from paperlib.cascade import archive
from paperlib.core import paths
from paperlib.core.provenance import about_one
from paperlib.core.seeds import random_numbers
from paperlib.datasets import Dataset
from paperlib.instruments.channels.settings import VggTraining
from paperlib.networks import Network, vgg16
from paperlib.sweep.plan import load_data
from paperlib.training import train

CODE_VERSION = 1  # raised when a change to the code changes the weights
MARGIN = 4  # pixels by which a training image is shifted at most, in each direction
MOMENTUM = 0.9
DEVIATION = 0.01  # of the fully connected weights at the start, as in arXiv:1409.1556
WARM_UP = 0.25  # of all steps: the rate rises, then falls to nothing
EVALUATED = 500  # images that pass through the network at a time


def train_vgg(
    config: VggTraining,
    path: str | os.PathLike[str] | None = None,
    *,
    data: Dataset | None = None,
    device: str = "cpu",
) -> tuple[Path, dict[str, Any]]:
    """Return the file with the trained weights, and what it says of itself.

    SGD with Nesterov momentum and weight decay on the cross-entropy of the logits; the rate rises
    and falls along a cosine. Each training image is mirrored or not, and shifted by up to four
    pixels. Grey images are given three equal channels. After every epoch all that is needed to go
    on is written beside the file, under its name with `.part` before the ending.

    Args:
        config: its settings.
        path: of the weights, .safetensors; None: in the folder of data sets, under a name that
            says network and data.
        data: the data set, where it is loaded already.
        device: "cpu" or "cuda".

    Returns:
        The path, and `config`, `data` (with checksum), `accuracy` on the test images and `loss`
        after each epoch, `seconds` of the clock, `computed` (versions and commit) and
        `finished_at`.

    Raises:
        ValueError: a file of other settings or data is in the way, or the training diverged.
    """
    data = data or load_data(config)
    file = Path(path).expanduser() if path else default_file(config, data)
    if file.suffix != ".safetensors":
        raise ValueError(f"the weights' path must end in .safetensors, got {file}")
    about = about_one(config, data, code_version=CODE_VERSION)
    if file.exists():
        return file, _checked(archive.read(file)[0], about, file)
    training = _Training(config, data, device)
    part = file.with_suffix(".part.safetensors")
    if part.exists():
        training.restore(*_read_part(part, about))
    while training.epoch < config.epochs:
        try:
            training.advance()
        except ValueError:  # what it has so far leads nowhere
            part.unlink(missing_ok=True)
            raise
        archive.write(part, training.tensors(), about | training.record())
        print(training.line(), flush=True)
    archive.write(file, training.weights(), about | training.record())
    part.unlink()
    return file, archive.read(file)[0]


def default_file(config: VggTraining, data: Dataset) -> Path:
    """Return where the weights of such a training are put, e.g. `vgg16_bn_cifar10.safetensors`."""
    norm = "_bn" if config.batch_norm else ""
    return paths.weights_file(f"vgg{config.layers}{norm}_{data.name}.safetensors")


class _Training:
    """A network on its way through the epochs."""

    def __init__(self, config: VggTraining, data: Dataset, device: str) -> None:
        self.config, self.device = config, device
        self.train = _Examples.of(data, "train", config.train_images, device)
        self.test = _Examples.of(data, "test", config.test_images, device)
        self.network = vgg16(
            "random",
            image_shape=(3, *data.image_shape[1:]),
            layers=config.layers,
            batch_norm=config.batch_norm,
            classes=len(data.classes),
            seed=config.seed,
        )
        _quieten(self.network, self.config.seed)
        self.network.to(device)
        self.optimiser = torch.optim.SGD(
            self.network.parameters(),
            lr=config.learning_rate,
            momentum=MOMENTUM,
            nesterov=True,
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.per_epoch = max(1, len(self.train.labels) // config.batch_size)
        self.epoch = 0
        self.accuracy: list[float] = []
        self.loss: list[float] = []
        self.seconds = 0.0

    def advance(self) -> None:
        """Train one more epoch, each with random numbers of its own."""
        begin = time.perf_counter()
        generator = random_numbers("epoch", self.config.seed + 2**32 * self.epoch)
        self.network.train()
        with torch.random.fork_rng(devices=[] if self.device == "cpu" else None):
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))  # of the dropout
            total = sum(
                train(
                    self.network,
                    self._batches(generator),
                    optimiser=self.optimiser,
                    schedule=self._schedule(),
                    rule=self._backpropagation,
                )
            )
        self.epoch += 1
        self.loss.append(round(total / self.per_epoch, 5))
        if not total < float("inf"):
            raise ValueError(
                f"the training diverged in epoch {self.epoch}; expected a learning_rate at which "
                f"it does not, got {self.config.learning_rate:g}: use a smaller one"
            )
        self.accuracy.append(round(self._accuracy(), 5))
        self.seconds += time.perf_counter() - begin

    def line(self) -> str:
        return (
            f"epoch {self.epoch} of {self.config.epochs}: loss {self.loss[-1]:.3f}, "
            f"accuracy {self.accuracy[-1]:.2%}, {self.seconds:.0f} s"
        )

    def record(self) -> dict[str, Any]:
        """What has come of it so far."""
        return {
            "accuracy": self.accuracy,
            "loss": self.loss,
            "seconds": round(self.seconds, 1),
            "epochs": self.epoch,
        }

    def weights(self) -> dict[str, Tensor]:
        return dict(self.network.state_dict())

    def tensors(self) -> dict[str, Tensor]:
        """All that is needed to go on."""
        named = self.network.named_parameters()
        momenta = {f"momentum.{n}": self.optimiser.state[p]["momentum_buffer"] for n, p in named}
        return {f"weights.{n}": value for n, value in self.weights().items()} | momenta

    def restore(self, about: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Continue from a saved state."""
        self.network.load_state_dict(
            {n.partition(".")[2]: v for n, v in tensors.items() if n.startswith("weights.")}
        )
        for name, parameter in self.network.named_parameters():
            self.optimiser.state[parameter] = {
                "momentum_buffer": tensors[f"momentum.{name}"].to(self.device)
            }
        self.accuracy, self.loss = about["accuracy"], about["loss"]
        self.seconds, self.epoch = about["seconds"], about["epochs"]

    def _schedule(self) -> torch.optim.lr_scheduler.LRScheduler:
        """The rate of every step, from this epoch's first one on: up and down along a cosine."""
        total = max(2, self.per_epoch * self.config.epochs)  # up and down again
        rise = max(1.0, WARM_UP * total)

        def share(step: int) -> float:
            step += self.epoch * self.per_epoch
            height = step / rise if step < rise else 1 - (step - rise) / (total - rise)
            return float(1 - torch.cos(torch.tensor(torch.pi * height))) / 2

        for group in self.optimiser.param_groups:
            group["initial_lr"] = self.config.learning_rate
        return torch.optim.lr_scheduler.LambdaLR(self.optimiser, share)

    def _backpropagation(self, network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """`backpropagation` in the precision asked for."""
        with self._precision():
            loss = nn.functional.cross_entropy(network(images).float(), labels)
        loss.backward()
        return loss.detach()

    def _batches(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Every image once, a remainder left out, shifted and mirrored at random."""
        size = min(self.config.batch_size, len(self.train.labels))
        order = torch.randperm(len(self.train.labels), generator=generator)
        for batch in order.split(size)[: self.per_epoch]:
            yield self.train.shifted(batch, generator), self.train.labels[batch]

    def _precision(self) -> torch.autocast:
        reduced = self.config.precision == "bfloat16"
        return torch.autocast(self.device, dtype=torch.bfloat16, enabled=reduced)

    @torch.no_grad()
    def _accuracy(self) -> float:
        self.network.eval()
        right = 0
        for start in range(0, len(self.test.labels), EVALUATED):
            images = self.test.images[start : start + EVALUATED].expand(-1, 3, -1, -1)
            with self._precision():
                found = self.network(images).argmax(1)
            right += int((found == self.test.labels[start : start + EVALUATED]).sum())
        return right / len(self.test.labels)


def _quieten(network: Network, seed: int) -> None:
    """Draw the fully connected weights as torchvision does, so that the logits begin
    near zero."""
    generator = random_numbers("fully connected", seed)
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, 0.0, DEVIATION, generator=generator)


@dataclass
class _Examples:
    """Images (n, 1 or 3, height, width) in [0, 1] and labels (n,), on one device."""

    images: Tensor
    labels: Tensor

    @classmethod
    def of(cls, data: Dataset, split: str, limit: int, device: str) -> "_Examples":
        return cls(*data.examples(split, limit, grey=False, device=device))

    def shifted(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        """These images in colour, (n, 3, height, width), mirrored or not and moved a little."""
        height, width = self.images.shape[-2:]
        padded = nn.functional.pad(self.images[batch], (MARGIN,) * 4)
        each = (len(batch), 1)
        rows = torch.randint(2 * MARGIN + 1, each, generator=generator) + torch.arange(height)
        columns = torch.randint(2 * MARGIN + 1, each, generator=generator) + torch.arange(width)
        mirrored = torch.randint(2, each, generator=generator) == 1
        columns = torch.where(mirrored, columns.flip(1), columns)
        which = torch.arange(len(batch)).view(-1, 1, 1)
        moved = padded[which, :, rows[:, :, None], columns[:, None, :]]  # (n, row, column, channel)
        return moved.permute(0, 3, 1, 2).expand(-1, 3, -1, -1).contiguous()


def _read_part(part: Path, about: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    found, tensors = archive.read(part)
    return _checked(found, about, part), tensors


def _checked(found: dict[str, Any], about: dict[str, Any], file: Path) -> dict[str, Any]:
    """What a file says of itself, if it is of this very training."""
    for name in ("config", "data", "code_version"):
        if _identifying(found.get(name)) != _identifying(about[name]):
            raise ValueError(
                f"{file} comes from another training: its {name} is {found.get(name)}, expected "
                f"{about[name]}; move it away, or give this one another path"
            )
    return found


def _identifying(value: Any) -> Any:
    """The value without where the data came from: once a download, then a file."""
    return {k: v for k, v in value.items() if k != "source"} if isinstance(value, dict) else value

"""Settings of experiments on images and networks: data, architecture, variance."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from paperlib.core.checks import LARGEST_SEED
from paperlib.core.settings import Checked, Measured, digest, option
from paperlib.networks.kinds import ACTIVATIONS, ARCHITECTURES, BLOCKS, PADDINGS, SHAPES


@dataclass(frozen=True, kw_only=True)
class ImageExperiment(Checked):
    """What every experiment states: its images."""

    dataset: str = "mnist"
    fallback: bool = False  # take an offline data set where this one is missing
    train_images: int = option(2000, low=2)
    test_images: int = option(100, low=2)
    data_seed: int = option(0, low=0, high=LARGEST_SEED)

    def unread(self) -> tuple[str, ...]:
        """The settings that do not change the numbers, given the data's checksum.

        The data set's name and fall-back only say where the data came from.
        """
        return ("dataset", "fallback")

    def identifying(self) -> dict[str, Any]:
        """The settings that do: two experiments that agree in them share their points."""
        before = {
            setting.name: setting.metadata["before"]
            for setting in dataclasses.fields(self)
            if "before" in setting.metadata
        }
        return {
            name: value
            for name, value in self.as_dict().items()
            if name not in self.unread() and not (name in before and value == before[name])
        }

    def identity(self, *, code_version: int, checksum: str) -> str:
        """The sha256 of everything that determines the numbers: settings, code and data, in hex."""
        return digest({**self.identifying(), "code": code_version, "data": checksum})


@dataclass(frozen=True, kw_only=True)
class Experiment(ImageExperiment):
    """Untrained networks of one architecture, whose weights have one variance."""

    architecture: str = option("mlp", choices=ARCHITECTURES)
    shape: str = option("wide", choices=SHAPES)  # MLPs only
    activation: str = option("tanh", choices=ACTIVATIONS)
    # MLPs only
    width: int = option(0, low=0, high=100_000, zero="as many neurons as pixels")
    channels: int = option(64, low=1, high=100_000)  # convolutional networks only
    padding: str = option("circular", choices=PADDINGS, before="circular")  # CNNs only
    block: str = option("plain", choices=BLOCKS, before="plain")  # ResNets only
    sigma_b2: float = option(0.05, low=0.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shape == "shrinking" and self.width:
            raise ValueError(f"width is given by the shape 'shrinking', got {self.width}; use 0")

    def unread(self) -> tuple[str, ...]:
        """The settings that do not change the numbers, given the data's checksum.

        No network reads the options of another architecture.
        """
        own = {"mlp": ("shape", "width"), "cnn": ("channels", "padding")}
        own["resnet"] = ("channels", "block")
        others = {name for names in own.values() for name in names} - {*own[self.architecture]}
        return (*super().unread(), *sorted(others))


@dataclass(frozen=True, kw_only=True)
class Point(Experiment, Measured):
    """One network of its own."""

    sigma_w2: float = option(1.7, above=0.0)
    seed: int = option(0, low=0, high=LARGEST_SEED)

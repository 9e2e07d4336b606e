"""The settings of a look at single channels, and of the training of a VGG network."""

from dataclasses import dataclass
from typing import ClassVar

from paperlib.core.checks import LARGEST_SEED, quoted
from paperlib.core.settings import Checked, option
from paperlib.networks.kinds import PRECISIONS, SOLVERS, VGG_LAYERS, vgg_channels


@dataclass(frozen=True, kw_only=True)
class VggTraining(Checked):
    """A VGG network that is trained on small images; see `training_vgg`."""

    dataset: str = "cifar10"
    fallback: bool = False
    layers: int = option(16, choices=VGG_LAYERS)
    batch_norm: bool = True
    epochs: int = option(20, low=1, high=10_000)
    batch_size: int = option(128, low=2)  # batch norm needs two
    learning_rate: float = option(0.05, above=0.0)  # the highest of the schedule
    weight_decay: float = option(5e-4, low=0.0)
    precision: str = option("float32", choices=PRECISIONS)
    train_images: int = option(60_000, low=2)
    test_images: int = option(10_000, low=2)
    seed: int = option(0, low=0, high=LARGEST_SEED)
    data_seed: ClassVar[int] = 0


@dataclass(frozen=True, kw_only=True)
class ChannelsPoint(Checked):
    """A VGG network, photographs, and which of its channels are looked at; see `channels`.

    A channel is written level:channel, such as 10:112.
    """

    weights: str = "random"
    layers: int = option(16, choices=VGG_LAYERS)
    batch_norm: bool = False
    side: int = option(224, low=32, high=4096)  # of the photographs, in pixels
    photographs: str = "bundled"
    train_images: int = option(200, low=2)  # that the cascade is fitted to
    test_images: int = option(20, low=2)  # that R² is measured on
    image: str = "astronaut"
    shown: tuple[str, ...] = ("3:26", "6:3", "10:112")
    asked: str = "10:216"
    asked_images: tuple[str, ...] = ("astronaut", "chelsea", "coffee", "camera")
    ranked_levels: tuple[int, ...] = option((3, 6, 10, 14), low=1)
    ranked_images: int = option(4, low=1)
    best: int = option(8, low=1)  # channels of each ranked level in the gallery
    solver: str = option("ridge", choices=SOLVERS)
    resolution: float = option(1e-3, above=0.0)  # ridge only
    compare: bool = False  # with random weights; after ridge with Adam for as long, too
    seed: int = option(0, low=0, high=LARGEST_SEED)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, texts in (("shown", self.shown), ("asked", (self.asked,))):
            for text in texts:
                self._check(text, *level_and_channel(text, name=name))
        for level in self.ranked_levels:
            self._check(str(level), level)
        if self.ranked_images > self.test_images:
            raise ValueError(
                f"ranked_images must be <= test_images ({self.test_images}), "
                f"got {self.ranked_images}"
            )

    def _check(self, text: str, level: int, channel: int = 0) -> None:
        """Raise a ValueError where the network has no such level or channel."""
        channels = vgg_channels(self.layers)
        if level > len(channels):
            raise ValueError(f"levels are 1 … {len(channels)}, got {level} in {text!r}")
        if channel >= channels[level - 1]:
            raise ValueError(
                f"level {level} has the channels 0 … {channels[level - 1] - 1}, got {text!r}"
            )


def level_and_channel(text: str, *, name: str = "a channel") -> tuple[int, int]:
    """Return the level (from 1) and the channel (from 0) that a text such as 10:112 names.

    Raises:
        ValueError: another text.
    """
    level, colon, channel = text.partition(":")
    if not (colon and level.isdecimal() and channel.isdecimal() and int(level)):
        raise ValueError(f"{name} is written level:channel, such as 10:112; got {quoted(text)}")
    return int(level), int(channel)

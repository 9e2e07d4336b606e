"""What each notebook's `parameters` cell fills in, checked, and the sweeps that it stands for."""

from dataclasses import dataclass

from paperlib.core.settings import PROFILES, option
from paperlib.instruments.channels.settings import ChannelsPoint


@dataclass(frozen=True, kw_only=True)
class Vgg16Channels(ChannelsPoint):
    """The parameters of the notebook of VGG16's channels."""

    profile: str = option("quick", choices=PROFILES)
    side: int = option(64, low=32, high=4096)
    train_images: int = option(100, low=2)
    test_images: int = option(10, low=2)
    ranked_levels: tuple[int, ...] = option((3, 6, 10), low=1)
    ranked_images: int = option(2, low=1)
    start_from: str = ""

    def point(self) -> ChannelsPoint:
        """The network, and what is looked at."""
        return ChannelsPoint(**self.shared_with(ChannelsPoint))

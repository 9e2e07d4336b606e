"""What each notebook's `parameters` cell fills in, checked, and the sweeps that it stands for."""

from dataclasses import dataclass

from paperlib.core.settings import Parameters, option


@dataclass(frozen=True, kw_only=True)
class ProbeYourModel(Parameters):
    """The parameters of the probe's notebook: a network that is dead and saved, and others."""

    depth: int = option(60, low=1, high=10_000)
    width: int = option(100, low=1, high=100_000)
    probed_images: int = option(1000, low=10)
    steps: int = option(1000, low=1)
    learning_rate: float = option(0.3, above=0.0)
    batch_size: int = option(64, low=1)
    judged_images: int = option(2000, low=2)
    pictures: str = "patches"
    picture_count: int = option(200, low=10)
    picture_size: int = option(64, low=32, high=1024)
    seed: int = option(0, low=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.picture_size % 16:
            raise ValueError(
                f"picture_size must be a multiple of 16, the side of two squares of the Vision "
                f"Transformer; got {self.picture_size}"
            )

"""Models by name and pictures in the wanted form."""

import pytest
import torch

from paperlib.instruments.probe.command import model_of, pictures_of


def test_a_model_of_an_installed_package_is_found() -> None:
    assert isinstance(model_of("torch.nn:Identity"), torch.nn.Identity)
    assert type(model_of("torchvision.models:resnet18")).__name__ == "ResNet"


@pytest.mark.parametrize(("channels", "expected"), [(None, 1), (1, 1), (3, 3)])
def test_pictures_come_in_the_wanted_channels_and_size(channels: int | None, expected: int) -> None:
    pictures = pictures_of("digits", count=5, channels=channels, size=10)
    assert pictures.shape == (5, expected, 10, 10)
    assert pictures.dtype == torch.float32
    assert 0 <= float(pictures.min()) < float(pictures.max()) <= 1
    assert torch.equal(pictures[:, 0], pictures[:, -1])


@pytest.mark.parametrize("wrong", [{"count": 2.5}, {"count": 5, "size": "10"}])
def test_a_count_or_a_size_that_is_no_whole_number_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must be a whole number"):
        pictures_of("digits", **wrong)


def test_colour_can_be_made_grey() -> None:
    colour, grey = (pictures_of("patches", count=3, channels=c) for c in (None, 1))
    assert grey.shape[1] == 1
    assert colour.shape[2:] == grey.shape[2:]

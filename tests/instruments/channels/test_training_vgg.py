"""VGG on small images: it learns, it goes on where it stopped, and its file says what it is."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from paperlib.cascade import archive
from paperlib.datasets import Dataset
from paperlib.instruments.channels import training_vgg
from paperlib.instruments.channels.settings import VggTraining
from paperlib.instruments.channels.training_vgg import default_file, train_vgg
from paperlib.networks import vgg16

pytestmark = pytest.mark.slow

SMALL = VggTraining(layers=11, epochs=2, batch_size=8, train_images=16, test_images=8)


def blots(*, train: int = 16, test: int = 8, channels: int = 1) -> Dataset:
    """Two classes: the upper half is bright, or the lower one."""
    random = torch.Generator().manual_seed(0)

    def split(count: int) -> tuple[Tensor, Tensor]:
        labels = torch.arange(count) % 2
        images = torch.randint(0, 60, (count, channels, 32, 32), generator=random)
        images[labels == 0, :, :16] += 190
        images[labels == 1, :, 16:] += 190
        return images.to(torch.uint8), labels

    return Dataset(*split(train), *split(test), "blots", "here", "0" * 64, ("up", "down"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    return train_vgg(SMALL, tmp_path_factory.mktemp("w") / "w.safetensors", data=blots())


def same(first: Path, second: Path) -> bool:
    (_, a), (_, b) = archive.read(first), archive.read(second)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_it_learns_two_classes(tmp_path: Path) -> None:
    config = replace(SMALL, epochs=4, train_images=40)
    _, about = train_vgg(config, tmp_path / "w.safetensors", data=blots(train=40))
    assert about["accuracy"][-1] >= 0.9
    assert about["loss"][-1] < about["loss"][0]


def test_a_training_of_one_step_ends(tmp_path: Path) -> None:
    config = replace(SMALL, epochs=1, train_images=8)
    _, about = train_vgg(config, tmp_path / "w.safetensors", data=blots(train=8))
    assert about["epochs"] == 1


def test_the_file_says_what_it_was_trained_on_and_how_well(
    trained: tuple[Path, dict[str, Any]],
) -> None:
    _, about = trained
    assert about["config"] == SMALL.as_dict()
    assert (about["data"]["name"], about["data"]["train_images"]) == ("blots", 16)
    assert about["epochs"] == len(about["accuracy"]) == len(about["loss"]) == 2


def test_the_weights_are_those_of_a_network_that_vgg16_builds(
    trained: tuple[Path, dict[str, Any]],
) -> None:
    file, about = trained
    network = vgg16(file, image_shape=(3, 32, 32), layers=11, batch_norm=True).eval()
    data = blots()
    logits = network(data.floats("test").expand(-1, 3, -1, -1))
    right = (logits.argmax(1) == data.test_labels).double().mean()
    assert float(right) == pytest.approx(about["accuracy"][-1], abs=1e-4)


def test_a_stopped_training_goes_on_to_the_same_numbers(
    trained: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "w.safetensors"
    advance = training_vgg._Training.advance

    def once(training: Any) -> None:
        if training.epoch:
            raise KeyboardInterrupt
        advance(training)

    with monkeypatch.context() as patch:
        patch.setattr(training_vgg._Training, "advance", once)
        with pytest.raises(KeyboardInterrupt):
            train_vgg(SMALL, file, data=blots())
    assert not file.exists()
    epochs: list[int] = []

    def counted(training: Any) -> None:
        advance(training)
        epochs.append(training.epoch)

    monkeypatch.setattr(training_vgg._Training, "advance", counted)
    found, about = train_vgg(SMALL, file, data=blots())
    assert epochs == [2]
    assert same(found, trained[0])
    assert about["loss"] == trained[1]["loss"]
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]


def test_a_finished_training_is_not_repeated(
    trained: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_vgg, "_Training", None)
    assert train_vgg(SMALL, trained[0], data=blots()) == trained


def test_a_training_that_downloaded_its_data_is_the_same_as_one_that_found_them(
    trained: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_vgg, "_Training", None)
    assert train_vgg(SMALL, trained[0], data=replace(blots(), source="a download")) == trained


def test_the_file_of_a_training_on_other_data_is_left_alone(
    trained: tuple[Path, dict[str, Any]],
) -> None:
    with pytest.raises(ValueError, match="comes from another training: its data"):
        train_vgg(SMALL, trained[0], data=replace(blots(), checksum="1" * 64))


@pytest.mark.parametrize("change", [{"seed": 1}, {"epochs": 3}])
def test_the_file_of_another_training_is_left_alone(
    change: dict[str, int], trained: tuple[Path, dict[str, Any]]
) -> None:
    before = trained[0].read_bytes()
    with pytest.raises(ValueError, match="comes from another training: its config"):
        train_vgg(replace(SMALL, **change), trained[0], data=blots())
    assert trained[0].read_bytes() == before


def test_a_damaged_checkpoint_is_told(tmp_path: Path) -> None:
    (tmp_path / "w.part.safetensors").write_bytes(b"half of it")
    with pytest.raises(ValueError, match="damaged"):
        train_vgg(SMALL, tmp_path / "w.safetensors", data=blots())


def test_weights_have_to_be_safetensors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must end in \.safetensors"):
        train_vgg(SMALL, tmp_path / "w.pth", data=blots())


def test_a_training_that_diverges_says_so_and_writes_no_weights(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"diverged in epoch \d; .* use a smaller one"):
        train_vgg(replace(SMALL, learning_rate=1e30), tmp_path / "w.safetensors", data=blots())
    assert not list(tmp_path.iterdir())


def test_colour_and_reduced_precision_are_taken(tmp_path: Path) -> None:
    config = replace(SMALL, epochs=1, precision="bfloat16", batch_norm=False)
    _, about = train_vgg(config, tmp_path / "w.safetensors", data=blots(channels=3))
    assert about["loss"][0] == pytest.approx(0.693, abs=0.1)  # two classes, logits near zero


def test_shifted_images_are_windows_of_the_image_in_a_dark_frame() -> None:
    data = blots(channels=3)
    examples = training_vgg._Examples.of(data, "train", 16, "cpu")
    moved = examples.shifted(torch.arange(16), torch.Generator().manual_seed(0))
    assert moved.shape == (16, 3, 32, 32)
    for image, found in zip(examples.images, moved, strict=True):
        padded = torch.nn.functional.pad(image, (training_vgg.MARGIN,) * 4)
        windows = [
            padded[:, row : row + 32, column : column + 32]
            for row in range(9)
            for column in range(9)
        ]
        hits = [torch.equal(found, w) or torch.equal(found.flip(2), w) for w in windows]
        assert sum(hits) == 1
    assert len({float(picture.sum()) for picture in moved}) > 8


def test_the_rate_rises_to_the_given_one_and_falls_to_nothing() -> None:
    training = training_vgg._Training(replace(SMALL, epochs=20), blots(), "cpu")
    schedule, rates = training._schedule(), []
    for _ in range(40):
        rates.append(training.optimiser.param_groups[0]["lr"])
        training.optimiser.step()
        schedule.step()
    assert rates[0] == 0
    assert max(rates) == pytest.approx(SMALL.learning_rate) == pytest.approx(rates[10])
    assert rates[-1] < 0.01 * SMALL.learning_rate
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_the_default_file_names_network_and_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAPERLIB_DATA", "/somewhere")
    assert default_file(SMALL, blots()) == Path("/somewhere/weights/vgg11_bn_blots.safetensors")

"""Weights of trained networks: where they are looked for, and what is refused."""

import io
import pickle
from email.message import Message
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from test_windows import normal
from torch import nn

from paperlib.datasets import DownloadError
from paperlib.networks.weights import imagenet_state, read_at, read_state, take


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of data sets; torch.hub's downloads are in hub/ beside it."""
    monkeypatch.setenv("PAPERLIB_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "data"


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_a_file_gives_its_tensors_by_name(ending: str, tmp_path: Path) -> None:
    state = {"a.weight": torch.rand(2, 3), "a.count": torch.tensor(4)}
    file = tmp_path / f"own{ending}"
    (save_file if ending == ".safetensors" else torch.save)(state, file)
    found = read_state(file)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)


class Bomb:
    """What runs code as soon as it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple:
        return Path.touch, (self.file,)


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    file, proof = tmp_path / "evil.pth", tmp_path / "it ran"
    torch.save({"a": Bomb(proof)}, file)
    with pytest.raises(ValueError, match=r"evil\.pth is damaged or holds more than named tensors"):
        read_state(file)
    assert not proof.exists()
    with pytest.raises(ValueError, match=r"evil\.pth") as refused:
        read_state(file)
    assert "which could run code and is not loaded" in str(refused.value)
    assert "weights_only" not in str(refused.value), "torch's advice to run it all the same"
    assert refused.value.__cause__ is None
    pickle.loads(pickle.dumps(Bomb(proof)))  # it would have
    assert proof.exists()


@pytest.mark.filterwarnings("ignore")
def test_a_script_is_refused_without_advice_to_run_it(tmp_path: Path) -> None:
    file = tmp_path / "script.pth"
    torch.jit.trace(nn.Linear(2, 2), torch.rand(1, 2)).save(str(file))
    with pytest.raises(ValueError, match="could run code and is not loaded") as refused:
        read_state(file)
    assert "weights_only" not in str(refused.value)


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
@pytest.mark.parametrize("damage", [lambda b: b[:100], lambda b: b"", lambda b: b"x" * 99])
def test_a_damaged_file_is_named(ending: str, damage, tmp_path: Path) -> None:
    file = tmp_path / f"own{ending}"
    state = {"a": torch.rand(200)}
    (save_file if ending == ".safetensors" else torch.save)(state, file)
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ValueError, match=r"own.* is damaged"):
        read_state(file)


@pytest.mark.parametrize("content", [[torch.ones(2)], {"epoch": 3}, torch.ones(2)], ids=str)
def test_what_is_no_state_dict_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "own.pth")
    with pytest.raises(ValueError, match="not a state dict of named tensors"):
        read_state(tmp_path / "own.pth")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no weights at .*none\.pth; expected 'imagenet'"):
        read_state(tmp_path / "none.pth")


@pytest.mark.parametrize("where", ["data/weights", "hub/checkpoints"])
def test_imagenets_weights_are_found_where_they_lie(where: str, elsewhere: Path) -> None:
    file = elsewhere.parent / where / "vgg16-397923af.pth"
    file.parent.mkdir(parents=True)
    torch.save({"a": torch.ones(3)}, file)
    assert torch.equal(imagenet_state("vgg16")["a"], torch.ones(3))


def test_a_failed_download_says_which_file_to_put_where(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def refuse(request, *args: object, **options: object) -> None:
        asked.append(request.full_url)
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "urlopen", refuse)
    place = elsewhere / "weights" / "vgg16_bn-6c64b313.pth"
    with pytest.raises(DownloadError, match=f"not at {place}, and their download .* by hand"):
        imagenet_state("vgg16_bn")
    assert asked == ["https://download.pytorch.org/models/vgg16_bn-6c64b313.pth"]
    assert not place.exists()


def test_a_download_with_another_digest_is_refused(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Response(io.BytesIO):
        def __init__(self, *args: object, **options: object) -> None:
            super().__init__(b"something else")

        def info(self) -> Message:
            return Message()

    monkeypatch.setattr(torch.hub, "urlopen", Response)
    with pytest.raises(DownloadError, match="invalid hash value"):
        imagenet_state("vgg16")
    assert not list(elsewhere.rglob("*.pth*"))


def test_weights_of_another_network_are_refused_by_name() -> None:
    model, other = nn.Linear(2, 3), nn.Linear(2, 4)
    take(model, other.state_dict() | {"weight": torch.ones(3, 2), "bias": torch.ones(3)}, "it")
    assert torch.equal(model.weight, torch.ones(3, 2))
    with pytest.raises(ValueError, match=r"it does not fit: weight must be \(3, 2\), got \(4, 2\)"):
        take(model, other.state_dict(), "it")
    with pytest.raises(ValueError, match=r"bias must be \(3,\), got nothing"):
        take(model, {"weight": torch.ones(3, 2)}, "it")
    with pytest.raises(ValueError, match=r"new must be absent, got \(1,\)"):
        take(model, {**model.state_dict(), "new": torch.ones(1)}, "it")


@pytest.mark.parametrize("side", [7, 1, 2])
@pytest.mark.parametrize("size", [(7, 7), (1, 1), (2, 5), (14, 14), (9, 20)])
def test_a_layer_read_at_another_size_averages_as_torchvision_does(
    size: tuple[int, int], side: int
) -> None:
    weight, images = normal(4, 3 * side**2), normal(2, 3, *size)
    averaged = nn.functional.adaptive_avg_pool2d(images, side).flatten(1) @ weight.T
    read = read_at(weight, size, channels=3)
    torch.testing.assert_close(images.flatten(1) @ read.T, averaged)


def test_a_layer_that_reads_no_square_is_left_alone() -> None:
    weight = normal(4, 3 * 8)
    assert read_at(weight, (2, 4), channels=3) is weight

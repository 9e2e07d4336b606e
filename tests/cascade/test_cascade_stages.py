"""Cascades of stages of every kind, by both solvers: chains, files, what is left of the input."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from test_foreign import BasicBlock, Enlarged, Skipped, downsampled
from torch import nn

from paperlib import Cascade, initialise, r_squared, residual_mlp
from paperlib.cascade.linear import FixedPReLU
from paperlib.core.vision import torchvision

SHAPES = {"signal": (2, 16), "image": (2, 8, 8), "volume": (1, 6, 5, 4)}
MODES = {2: "linear", 3: "bilinear", 4: "trilinear"}


def inputs(kind: str, count: int, seed: int = 0) -> torch.Tensor:
    """Smooth random signals, images or volumes, values in [0, 1]."""
    shape = SHAPES[kind]
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, shape[0], *[3] * (len(shape) - 1), generator=generator)
    return nn.functional.interpolate(coarse, shape[1:], mode=MODES[len(shape)]).double()


def signals() -> list[nn.Module]:
    return [
        nn.Sequential(nn.Conv1d(2, 6, 3, padding=1), nn.Tanh()),
        nn.Sequential(nn.Conv1d(6, 8, 4, stride=2, padding=1), nn.PReLU(8)),
        Skipped(nn.Conv1d(8, 8, 3, padding=1), nn.Tanh(), nn.Conv1d(8, 8, 3, padding=1)),
        nn.Sequential(nn.ConvTranspose1d(8, 5, 4, stride=2, padding=1), nn.Tanh()),
        nn.MaxPool1d(2),
        nn.Flatten(),
        nn.Sequential(nn.Linear(40, 30), nn.PReLU()),
    ]


def drawings() -> list[nn.Module]:
    return [
        nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.PReLU(4)),
        BasicBlock(4, 4),
        downsampled(),
        nn.Sequential(nn.ConvTranspose2d(8, 4, 3, 2, 1, output_padding=1), nn.PReLU(4)),
        Enlarged(),
        nn.Sequential(nn.ConvTranspose2d(4, 3, 3, dilation=2, padding=1), nn.BatchNorm2d(3)),
        nn.Sequential(nn.PReLU(3), nn.Flatten(), nn.Linear(3 * 18 * 18, 20), nn.Tanh()),
        Skipped(nn.Linear(20, 20), nn.Tanh(), nn.Linear(20, 20)),
    ]


def volumes() -> list[nn.Module]:
    return [
        nn.Sequential(nn.Conv3d(1, 6, 3, padding=1), nn.BatchNorm3d(6), nn.Tanh()),
        nn.Sequential(nn.Conv3d(6, 8, 3, stride=(2, 1, 2), padding=1), nn.PReLU(8)),
        Skipped(nn.Conv3d(8, 8, 3, padding=1), nn.PReLU(), nn.Conv3d(8, 8, 1)),
        nn.Sequential(nn.ConvTranspose3d(8, 4, 2, stride=2), nn.Tanh()),
        nn.AvgPool3d(2),
    ]


KINDS = {"signal": signals, "image": drawings, "volume": volumes}


def made(kind: str) -> list[nn.Module]:
    torch.manual_seed(0)
    stages = nn.ModuleList(KINDS[kind]()).double().eval()
    for number, module in enumerate(stages.modules()):
        if isinstance(module, nn.PReLU):
            nn.init.uniform_(module.weight, 0.2, 0.6 + number / 1000)
    return list(stages)


@pytest.fixture(params=[(kind, solver) for kind in KINDS for solver in ("ridge", "adam")], ids=str)
def fitted(request: pytest.FixtureRequest) -> tuple[str, list[nn.Module], Cascade]:
    kind, solver = request.param
    stages = made(kind)
    cascade = Cascade.for_network(stages, inputs(kind, 1))
    return kind, stages, cascade.fit(inputs(kind, 150), solver=solver)


def chained(cascade: Cascade, stages: list[nn.Module], images: torch.Tensor, level: int):
    """The definition: down the stages, up the inverses."""
    with torch.no_grad():
        for stage in stages[:level]:
            images = stage(images)
        for inverse in reversed(cascade._inverses[:level]):
            images = inverse(images)
    return images


def periodic(inputs: int, outputs: int) -> nn.Module:
    around = nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="circular")
    return nn.Sequential(around, nn.Tanh())


@pytest.mark.parametrize("levels", [range(1, 6), [2, 5], [4]])
@pytest.mark.parametrize(
    "around",
    [
        {},  # circular inverses alone
        {1: nn.Conv2d(2, 3, 3, stride=2, padding=1)},  # a stem below them
        {1: nn.Conv2d(2, 3, 3, padding=1), 3: nn.AvgPool2d(2)},  # and something between them
        {5: nn.Sequential(nn.Flatten(), nn.Linear(3 * 6 * 5, 7))},  # none leads to the deepest
    ],
)
def test_filters_that_are_composed_make_the_pictures_that_inverses_make_one_by_one(
    around: dict[int, nn.Module], levels: Sequence[int]
) -> None:
    torch.manual_seed(0)
    stages = [around.get(number, periodic(2 if number == 1 else 3, 3)) for number in range(1, 6)]
    stages = nn.Sequential(*stages).double()
    pictures = torch.rand(60, 2, 6, 5, dtype=torch.float64)
    cascade = Cascade.for_network(stages, pictures[:1]).fit(pictures)
    for given in (pictures[:2], pictures):
        activations = cascade._activations(given, set(levels))
        expected = cascade._descend(activations)
        for found in (
            cascade._compose(activations),
            dict(zip(levels, cascade.reconstruct(given, levels=list(levels)), strict=True)),
        ):
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("count", [2, 400])  # composed, where it is affine, or not
def test_every_level_is_the_chain_of_inverses(
    fitted: tuple[str, list[nn.Module], Cascade], count: int
) -> None:
    kind, stages, cascade = fitted
    images = inputs(kind, count, seed=1)
    whole = cascade.reconstruct(images)
    assert whole.shape == (len(stages), count, *SHAPES[kind])
    for level in range(1, len(stages) + 1):
        expected = chained(cascade, stages, images, level)
        torch.testing.assert_close(whole[level - 1], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_closed_form_composes_to_one_matrix(kind: str) -> None:
    stages = made(kind)
    cascade = Cascade.for_network(stages, inputs(kind, 1)).fit(inputs(kind, 150))
    assert cascade._affine
    activations = cascade._activations(inputs(kind, 9, seed=1), set(range(1, cascade.depth + 1)))
    composed, descended = cascade._compose(activations), cascade._descend(activations)
    for level in activations:
        torch.testing.assert_close(composed[level], descended[level], rtol=0, atol=1e-5)


def test_a_saved_cascade_comes_back_the_same(
    fitted: tuple[str, list[nn.Module], Cascade], tmp_path: Path
) -> None:
    kind, stages, cascade = fitted
    cascade.save(tmp_path / "a.safetensors")
    loaded = Cascade.load(tmp_path / "a.safetensors", stages)
    for mine, kept in zip(loaded._inverses, cascade._inverses, strict=True):
        assert repr(mine) == repr(kept)
        pairs = zip(mine.state_dict().values(), kept.state_dict().values(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    images = inputs(kind, 5, seed=1)  # memory that is aligned otherwise is summed otherwise
    torch.testing.assert_close(
        loaded.reconstruct(images), cascade.reconstruct(images), rtol=0, atol=1e-12
    )


def test_a_checkpoint_of_such_stages_goes_on(
    fitted: tuple[str, list[nn.Module], Cascade], tmp_path: Path
) -> None:
    kind, stages, cascade = fitted
    options = {"solver": cascade._solver["solver"], "checkpoint": tmp_path}
    for _ in range(2):
        again = Cascade.for_network(stages, inputs(kind, 1)).fit(inputs(kind, 150), **options)
        images = inputs(kind, 5, seed=1)
        assert torch.equal(again.reconstruct(images), cascade.reconstruct(images))


def test_a_network_is_left_as_it_was_and_its_prelus_are_no_weights_of_an_inverse(
    fitted: tuple[str, list[nn.Module], Cascade],
) -> None:
    kind, stages, cascade = fitted
    theirs = nn.ModuleList(stages).state_dict()
    before = nn.ModuleList(made(kind)).state_dict()
    assert all(torch.equal(theirs[name], value) for name, value in before.items())
    own = {id(p) for stage in stages for p in stage.parameters()}
    weights = [p for inverse in cascade._inverses for p in inverse.parameters()]
    assert not own & {id(p) for p in weights}
    held = [m for inverse in cascade._inverses for m in inverse.modules()]
    assert not any(isinstance(module, nn.PReLU) for module in held)
    if not cascade._affine:
        assert any(isinstance(module, FixedPReLU) for module in held)


@pytest.mark.parametrize("kind", KINDS)
def test_the_closed_form_gives_back_most_of_the_first_level(kind: str) -> None:
    cascade = Cascade.for_network(made(kind), inputs(kind, 1)).fit(inputs(kind, 400))
    kept = r_squared(inputs(kind, 50, seed=1), cascade.reconstruct(inputs(kind, 50, seed=1)))
    assert float(kept[0]) > 0.85
    assert kept.isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_adams_loss_falls_and_r_squared_rises_with_steps(kind: str) -> None:
    stages, train, test = made(kind), inputs(kind, 200), inputs(kind, 50, seed=1)
    losses, kept = [], []
    for steps in (1, 400):
        cascade = Cascade.for_network(stages, train[:1]).fit(train, solver="adam", steps=steps)
        levels, loss = [train], []
        with torch.no_grad():
            for stage, inverse in zip(stages, cascade._inverses, strict=True):
                levels.append(stage(levels[-1]))
                loss.append(float((inverse(levels[-1]) - levels[-2]).square().mean()))
        losses.append(loss)
        kept.append(float(r_squared(test, cascade.reconstruct(test, levels=1)[0])))
    trained = [any(True for _ in inverse.parameters()) for inverse in cascade._inverses]
    assert all(a > b for a, b, any_ in zip(*losses, trained, strict=True) if any_)
    assert kept[1] > max(kept[0], 0.3)


def test_two_stages_with_other_slopes_are_not_trained_as_one() -> None:
    stages = [nn.Sequential(nn.Linear(5, 5), nn.PReLU(init=x / 4)).double() for x in range(4)]
    cascade = Cascade.for_network(stages, torch.rand(1, 5)).fit(torch.rand(20, 5), solver="adam")
    slopes = [float(inverse.activation.slopes) for inverse in cascade._inverses]
    assert slopes == [0, 0, 0.25, 0.5]  # the images count as bounded by the first stage's
    assert len({repr(inverse) for inverse in cascade._inverses}) == 3


@pytest.mark.parametrize("solver", ["ridge", "adam"])
def test_a_residual_mlp_is_reconstructed(solver: str) -> None:
    network = residual_mlp((2, 8, 8), depth=3)
    initialise(network, sigma_w2=1.0, sigma_b2=0.01, seed=0)
    train, test = inputs("image", 400).float(), inputs("image", 50, seed=1).float()
    cascade = Cascade.for_network(network, train[:1]).fit(train, solver=solver, steps=300)
    kept = r_squared(test, cascade.reconstruct(test))
    assert float(kept[0]) > (0.9 if solver == "ridge" else 0.4)
    assert all(0 < float(b) <= float(a) + 1e-3 for a, b in pairwise(kept))


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["ridge", "adam"])
def test_torchvisions_resnet_is_reconstructed_by_its_layers(solver: str) -> None:
    torch.manual_seed(0)
    model = torchvision.models.resnet18().eval()
    stages = [nn.Sequential(model.conv1, model.bn1, model.relu), model.maxpool, *model.layer1]
    steps = 120
    if solver == "ridge":
        stages, steps = [*stages, *model.layer2, model.layer3, model.layer4], None
    coarse = torch.rand(250, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    images = nn.functional.interpolate(coarse, (25, 24), mode="bilinear")
    train, test = images[:200], images[200:]
    cascade = Cascade.for_network(stages, train[:1]).fit(train, solver=solver, steps=steps)
    kept = r_squared(test, cascade.reconstruct(test))
    assert kept.isfinite().all()
    assert float(kept[0]) > 0.5

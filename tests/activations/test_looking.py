"""What `look` returns of models whose activations are known, and that nothing is changed."""

import copy

import pytest
import torch
from torch import Tensor, nn

from paperlib import cnn, initialise, mlp
from paperlib.activations import look
from paperlib.activations.stages import of_stages
from paperlib.activations.tracing import ProbeError
from paperlib.networks import Network


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x).tanh()


@pytest.fixture
def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(inplace=True), nn.Dropout(), Block(),
        nn.Linear(5, 2),
    )  # fmt: skip


IMAGES = torch.linspace(-1, 1, 28).view(7, 4)


def by_name(model: nn.Module, *arguments: object, **options: object) -> dict[str, Tensor]:
    return {stage.name: value for stage, value in look(model, *arguments, **options)}  # type: ignore[arg-type]


# --- what it returns ---


@pytest.mark.parametrize("network", [mlp((1, 4, 4), depth=3), cnn((1, 4, 4), depth=2, channels=3)])
def test_a_network_of_ours_is_seen_at_its_stages_in_order(network: Network) -> None:
    initialise(network, sigma_w2=1.5, sigma_b2=0.1, seed=0)
    images = torch.rand(5, 1, 4, 4)
    found = by_name(network, images)
    assert list(found) == [f"stages.{level}" for level in range(len(network.stages))]
    expected = of_stages(network.stages, images).values()
    for activation, stage in zip(found.values(), expected, strict=True):
        torch.testing.assert_close(activation, stage, rtol=0, atol=0)


def test_any_model_is_seen_where_all_paths_meet_and_the_activations_are_its_own(
    model: nn.Sequential,
) -> None:
    found = by_name(model, IMAGES)
    assert list(found) == ["2", "4", "5"]
    model.eval()
    for name, activation in found.items():
        torch.testing.assert_close(activation, model[: int(name) + 1](IMAGES), rtol=0, atol=0)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_images_keep_their_order_whatever_runs_at_a_time(
    model: nn.Sequential, batch_size: int
) -> None:
    found = by_name(model, IMAGES, batch_size=batch_size)
    expected = by_name(model, IMAGES)
    for name, activation in found.items():
        torch.testing.assert_close(activation, expected[name])


def test_layers_narrow_it_and_an_activation_is_not_what_a_later_layer_made_of_it(
    model: nn.Sequential,
) -> None:
    found = by_name(model, IMAGES, ["1", "4.body"])
    assert list(found) == ["1", "4.body"]
    assert (found["1"] < 0).any()  # the ReLU behind it writes in place


def test_each_call_of_a_layer_is_a_stage_of_its_own() -> None:
    layer = nn.Linear(3, 3)
    first, second = by_name(nn.Sequential(layer, layer), torch.eye(3), ["0"]).values()
    torch.testing.assert_close(first, layer(torch.eye(3)).detach())
    torch.testing.assert_close(second, layer(first).detach())


def test_a_single_image_is_enough(model: nn.Sequential) -> None:
    for name, activation in by_name(model, IMAGES[:1]).items():
        torch.testing.assert_close(activation, by_name(model, IMAGES)[name][:1])


class Summed(nn.Module):
    """Words and a picture, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.picture = nn.Embedding(9, 3), nn.Linear(4, 3)

    def forward(self, words: Tensor, picture: Tensor) -> Tensor:
        return self.words(words).mean(1) + self.picture(picture)


def test_several_arguments_go_in_by_name_or_in_order() -> None:
    model, words = Summed(), torch.arange(14).view(7, 2) % 9
    found = by_name(model, {"words": words, "picture": IMAGES.double()}, ["picture", ""])
    torch.testing.assert_close(found["picture"], model.picture(IMAGES).detach())
    (other,) = by_name(model, (words, IMAGES), [""]).values()
    torch.testing.assert_close(other, found["output"])


def test_words_alone_can_be_what_a_model_takes() -> None:
    model = nn.Sequential(nn.Embedding(9, 3), nn.Flatten(), nn.Linear(6, 2))
    found = by_name(model, torch.arange(14).view(7, 2) % 9)
    assert found["2"].shape == (7, 2)


# --- what it leaves ---


def state_of(model: nn.Module) -> tuple[object, ...]:
    return (
        {name: value.clone() for name, value in model.state_dict().items()},
        [module.training for module in model.modules()],
        [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        [p.grad for p in model.parameters()],
        torch.get_rng_state(),
    )


def assert_as_before(model: nn.Module, before: tuple[object, ...]) -> None:
    for now, then in zip(state_of(model), before, strict=True):
        torch.testing.assert_close(now, then, rtol=0, atol=0)


class Noisy(nn.Module):
    """Draws numbers whatever its mode, and counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.layer(x) + torch.randn(4)


def test_nothing_changes_also_when_it_is_abandoned_half_way(model: nn.Sequential) -> None:
    model[3].eval()
    model.insert(0, Noisy())
    before = state_of(model)
    for _ in look(model, IMAGES):
        assert_as_before(model, before)
        break


def fail(pairs: object) -> None:
    for _ in pairs:  # type: ignore[attr-defined]
        raise RuntimeError("consumer")


def test_nothing_changes_also_after_an_error_in_the_consumer(model: nn.Sequential) -> None:
    before = state_of(model)
    with pytest.raises(RuntimeError, match="consumer"):
        fail(look(model, IMAGES))
    assert_as_before(model, before)


def test_nothing_changes_when_the_model_stops(model: nn.Sequential) -> None:
    model.append(nn.Linear(3, 3))
    before = state_of(model)
    with pytest.raises(ProbeError, match=r"layer '6', which was given \(2, 2\)"):
        look(model, IMAGES)
    assert_as_before(model, before)


def test_the_images_stay_as_they_are() -> None:
    images = IMAGES.clone()
    look(nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 2)), images)
    torch.testing.assert_close(images, IMAGES, rtol=0, atol=0)


def test_a_models_own_random_numbers_are_those_of_the_seed() -> None:
    model = Noisy()
    first, again, other = (by_name(model, IMAGES, [""], seed=s)["output"] for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.slow
def test_a_compiled_model_is_seen_as_it_was_before(model: nn.Sequential) -> None:
    compiled = torch.compile(copy.deepcopy(model))
    assert list(by_name(compiled, IMAGES)) == ["2", "4", "5"]


# --- what it refuses ---


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((IMAGES, ["6"]), {}, r"no layer '6'; its layers are 0, 1"),
        ((IMAGES[:0],), {}, "at least one sample"),
        (((IMAGES, IMAGES[:2]),), {}, r"images\[1\] has 2"),
        (([1, 2],), {}, "must be a tensor with an axis of samples"),
        ((IMAGES,), {"batch_size": 0}, "batch_size must be >= 1, got 0"),
        ((IMAGES,), {"seed": -1}, "seed must be >= 0, got -1"),
    ],
)
def test_what_it_cannot_take_is_named(
    model: nn.Sequential, arguments: tuple[object, ...], options: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        look(model, *arguments, **options)  # type: ignore[arg-type]


def test_a_model_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"torch\.nn\.Module, got str"):
        look("model", IMAGES)  # type: ignore[arg-type]

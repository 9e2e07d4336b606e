"""Direct feedback alignment against its formula by hand, backpropagation where both agree, and
Lillicrap's proposition."""

import math

import pytest
import torch
from torch import Tensor, nn

from paperlib.networks import cnn, initialise, mlp
from paperlib.networks.network import Network
from paperlib.training import (
    alignment_angles,
    backpropagation,
    feedback_alignment,
    feedback_matrices,
    parts_of,
    train,
)
from paperlib.training.feedback import FEEDBACKS

SHAPE = (1, 4, 4)


def lessons(count: int = 60, classes: int = 10) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(count, *SHAPE, generator=generator, dtype=torch.float64)
    return images, torch.arange(count) % classes


def network(depth: int = 3, *, activation: str = "tanh", sigma_w2: float = 1.7) -> Network:
    made = mlp(SHAPE, depth=depth, width=20, activation=activation)
    initialise(made, sigma_w2=sigma_w2, sigma_b2=0.05 * (sigma_w2 > 0), seed=0)
    return made.double()


def linear(layers: int = 2) -> nn.Sequential:
    """A linear network of 16 inputs, hidden layers of 30, and 10 outputs."""
    sizes = [16, *[30] * (layers - 1), 10]
    made = nn.Sequential(nn.Flatten(), *map(nn.Linear, sizes, sizes[1:]))
    initialise(made, sigma_w2=1.0, sigma_b2=0.05, seed=1)
    return made.double()


def gradients(rule, model: nn.Module) -> list[Tensor]:
    model.zero_grad()
    rule(model, *lessons())
    return [parameter.grad.clone() for parameter in model.parameters()]


def matrices_of(model: nn.Module, feedback: str = "random", seed: int = 0) -> list[Tensor]:
    return feedback_matrices(model, lessons()[0][:1], feedback=feedback, seed=seed)


def ruled(model: nn.Module, feedback: str = "random") -> list[Tensor]:
    return gradients(feedback_alignment(model, matrices_of(model, feedback)), model)


def error_of(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.softmax(-1) - nn.functional.one_hot(labels, logits.shape[-1])


# --- the update


def test_every_update_is_the_formula_by_hand_which_holds_no_weight_from_above() -> None:
    """ΔW of layer l: (e B ∘ φ′(a))ᵀ h / n, of tanh φ′ = 1 − h², and the output layer's eᵀ h / n."""
    model = network()
    images, labels = lessons()
    matrices = matrices_of(model)
    found = iter(ruled(model))
    layers = [m for m in model.modules() if isinstance(m, nn.Linear)]
    with torch.no_grad():
        hidden = [images.flatten(1)]
        for layer in layers[:-1]:
            hidden.append(torch.tanh(hidden[-1] @ layer.weight.T + layer.bias))
        error = error_of(hidden[-1] @ layers[-1].weight.T + layers[-1].bias, labels)
    assert len(matrices) == len(layers) - 1
    slopes = [(error @ matrix) * (1 - h**2) for matrix, h in zip(matrices, hidden[1:], strict=True)]
    for slope, h in zip([*slopes, error], hidden, strict=True):
        torch.testing.assert_close(next(found), slope.T @ h / len(labels), rtol=1e-12, atol=1e-17)
        torch.testing.assert_close(next(found), slope.mean(0), rtol=1e-12, atol=1e-17)


def test_a_step_of_a_linear_network_of_two_layers_is_its_closed_form() -> None:
    model = linear()
    images, labels = lessons()
    matrix = matrices_of(model)
    old = [p.detach().clone() for p in model.parameters()]
    x = images.flatten(1)
    h = x @ old[0].T + old[1]
    error = error_of(h @ old[2].T + old[3], labels) / len(labels)
    rule = feedback_alignment(model, matrix)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.3)
    train(model, [(images, labels)], optimiser=optimiser, rule=rule)
    heard = error @ matrix[0]
    wanted = [heard.T @ x, heard.sum(0), error.T @ h, error.sum(0)]
    for parameter, before, slope in zip(model.parameters(), old, wanted, strict=True):
        torch.testing.assert_close(parameter.detach(), before - 0.3 * slope, rtol=1e-12, atol=1e-15)


def test_with_one_hidden_layer_and_its_own_weights_as_feedback_it_is_backpropagation() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 9), nn.Tanh(), nn.Linear(9, 10)).double()
    own = feedback_alignment(model, [model[3].weight.detach().clone()])
    for one, other in zip(gradients(own, model), gradients(backpropagation, model), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-17)


def test_the_product_of_the_weights_makes_it_backpropagation_in_a_linear_network() -> None:
    model = linear(5)
    pairs = zip(ruled(model, "product"), gradients(backpropagation, model), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-17)


def test_of_small_tanh_networks_the_product_lacks_slopes_of_second_order() -> None:
    def apart(factor: float) -> float:
        model = network(2, sigma_w2=1.0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(factor)
        one, other = ruled(model, "product")[0], gradients(backpropagation, model)[0]
        return float((one - other).norm() / other.norm())

    assert apart(0.01) / apart(0.1) == pytest.approx(0.01, rel=0.1)
    assert apart(0.1) > 1e-4


def test_without_feedback_only_the_last_layer_learns_and_as_ever() -> None:
    model = network()
    silent = [torch.zeros_like(matrix) for matrix in matrices_of(model)]
    *hidden, weight, bias = gradients(feedback_alignment(model, silent), model)
    assert all(not each.any() for each in hidden)
    wanted = gradients(backpropagation, model)[-2:]
    for one, other in zip((weight, bias), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-17)


def test_the_loss_is_the_mean_cross_entropy() -> None:
    model = network()
    found = feedback_alignment(model, matrices_of(model))(model, *lessons())
    assert not found.requires_grad
    torch.testing.assert_close(found, backpropagation(model, *lessons()))


# --- what becomes of it


@pytest.mark.slow
def test_in_a_linear_network_the_angle_falls_below_ninety_degrees_and_stays() -> None:
    """Lillicrap's proposition: the weights turn towards the feedback, so that eᵀ W B e > 0."""
    model = linear()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.01)
    images, labels = lessons()
    matrices, seen = matrices_of(model, seed=3), []

    def look(step: int, model: nn.Module) -> None:
        (angle,) = alignment_angles(model, matrices, images, labels)
        error = error_of(model(images).detach(), labels)
        along = (error @ matrices[0]) @ (error @ model[2].weight.detach()).T
        seen.append((angle, float(along.diagonal().mean())))

    train(model, (images, labels), optimiser=torch.optim.SGD(model.parameters(), lr=0.5), steps=300,
          rule=feedback_alignment(model, matrices), observers=[look])  # fmt: skip
    angles, along = zip(*seen, strict=True)
    assert angles[0] > 75
    assert max(angles[100:]) < 60
    assert min(along[100:]) > 0


def test_random_feedback_is_at_right_angles_before_it_learns() -> None:
    angles = []
    for seed in range(30):
        model = network(2)
        initialise(model, sigma_w2=1.7, sigma_b2=0.05, seed=seed)
        angles.append(alignment_angles(model, matrices_of(model, seed=seed), *lessons()))
    found = torch.tensor(angles)
    error = found.std(0) / math.sqrt(len(found))
    assert found.shape == (30, 3)
    assert ((found.mean(0) - 90).abs() < 4 * error).all()
    assert (found.std(0) < 30).all()


def test_the_product_is_at_no_angle_in_a_linear_network() -> None:
    model = linear(4)
    found = alignment_angles(model, matrices_of(model, "product"), *lessons())
    assert found == pytest.approx([0] * 3, abs=1e-4)


def test_zero_weights_learn_by_feedback_and_never_by_backpropagation() -> None:
    images, labels = lessons()

    def learnt(activation: str, feedback: str | None) -> nn.Module:
        model = network(3, activation=activation, sigma_w2=0.0)
        rule = feedback_alignment(model, matrices_of(model, feedback)) if feedback else None
        optimiser = torch.optim.SGD(model.parameters(), lr=0.5)
        train(model, (images, labels), optimiser=optimiser, steps=20, rule=rule)
        return model

    ways = (("tanh", "random"), ("tanh", "binary"), ("tanh", None), ("relu", "random"))
    first = [learnt(*how).stages[0].linear.weight for how in ways]
    assert first[0].any()
    assert first[1].any()
    assert not first[2].any()
    assert not first[3].any(), "the slope of ReLU is 0 at 0"


# --- the matrices


def test_binary_feedback_has_the_signs_and_the_mean_square_of_random_feedback() -> None:
    model = mlp(SHAPE, depth=2, width=3000)
    random, binary = (
        feedback_matrices(model, torch.rand(1, *SHAPE), feedback=kind, seed=5)
        for kind in ("random", "binary")
    )
    for uniform, signs in zip(random, binary, strict=True):
        features = uniform.shape[1]
        assert torch.equal(uniform.sign(), signs.sign())
        torch.testing.assert_close(signs.square(), torch.full_like(signs, 1 / (3 * features)))
        assert uniform.abs().max() <= 1 / math.sqrt(features)
        # x² of uniform x has the mean 1/3 and the variance 4/45
        error = math.sqrt(4 / 45 / uniform.numel())
        assert abs(float(uniform.square().mean() * features) - 1 / 3) < 4 * error


def test_the_signs_of_the_product_have_the_size_of_binary_feedback() -> None:
    model = network()
    for product, signs in zip(
        matrices_of(model, "product"), matrices_of(model, "product_sign"), strict=True
    ):
        assert torch.equal(product.sign(), signs.sign())
        assert float(signs.square().mean() * 3 * signs.shape[1]) == pytest.approx(1)


def test_matrices_depend_on_the_seed_alone_and_are_of_the_networks_kind() -> None:
    models = [network() for _ in range(3)]
    state = torch.random.get_rng_state()
    first, again, other = (
        matrices_of(model, seed=seed) for model, seed in zip(models, (1, 1, 2), strict=True)
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(map(torch.equal, first, again))
    assert not torch.equal(first[0], other[0])
    assert {each.dtype for each in first} == {torch.float64}
    assert not any(each.requires_grad for each in [*first, *matrices_of(network(), "product")])


# --- parts


def hybrid() -> nn.Sequential:
    """Two convolutions, two dense layers, and the logits."""
    made = nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 3, 2), nn.Tanh(), nn.Conv2d(3, 2, 2), nn.Tanh()), nn.Flatten(),
        nn.Linear(8, 7), nn.Tanh(), nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, 10),
    )  # fmt: skip
    initialise(made, sigma_w2=1.0, sigma_b2=0.05, seed=0)
    return made.double()


def test_before_dense_layers_convolutions_learn_by_backpropagation_of_what_they_hear() -> None:
    model = hybrid()
    images, labels = lessons()
    convolutions, matrices = nn.Sequential(*model[:2]), matrices_of(model)
    assert [tuple(each.shape) for each in matrices] == [(10, 8), (10, 7), (10, 6)]
    found = ruled(model)
    model.zero_grad()
    error = error_of(model(images).detach(), labels) / len(labels)
    convolutions(images).backward(error @ matrices[0])
    for parameter, one in zip(convolutions.parameters(), found, strict=False):
        torch.testing.assert_close(one, parameter.grad, rtol=1e-12, atol=1e-17)
    weights = [model[n].weight.detach() for n in (6, 4, 2)]
    product = weights[0] @ weights[1] @ weights[2]
    torch.testing.assert_close(matrices_of(model, "product")[0], product)


def test_a_network_is_cut_before_its_linear_layers_alone() -> None:
    kinds = [[type(layer).__name__ for layer in part] for part in parts_of(network(2))]
    assert kinds == [["Flatten", "Linear", "Tanh"], *[["Linear", "Tanh"]] * 2, ["Linear"]]
    assert len(parts_of(cnn((1, 8, 8), depth=2, channels=4))) == 2
    images, model = lessons()[0], network(2)
    x = images
    for part in parts_of(model):
        x = part(x)
    assert torch.equal(x, model(images))


def test_what_cannot_be_cut_is_refused_and_never_learns_by_backpropagation_instead() -> None:
    for model in (nn.Sequential(nn.Flatten(), nn.Linear(16, 10)), nn.Linear(16, 10)):
        with pytest.raises(ValueError, match=r"needs a Network or an nn\.Sequential"):
            feedback_matrices(model, torch.rand(1, *SHAPE))
    model = network()
    with pytest.raises(ValueError, match=r"one for each of the 4 hidden parts.*got 3"):
        feedback_alignment(model, matrices_of(model)[1:])
    rule = feedback_alignment(model, matrices_of(model))
    with pytest.raises(ValueError, match="belongs to another network"):
        rule(network(), *lessons())
    with pytest.raises(ValueError, match="feedback must be one of"):
        matrices_of(model, "randon")
    normed = nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.Linear(4, 4), nn.LayerNorm(4))
    with pytest.raises(ValueError, match="one holds Linear, LayerNorm"):
        feedback_matrices(normed.double(), lessons()[0], feedback="product")


@pytest.mark.parametrize("feedback", FEEDBACKS)
def test_every_kind_of_feedback_learns_what_a_network_can_learn(feedback: str) -> None:
    model, (images, _) = network(), lessons()
    labels = (images[:, 0, 0, 0] > images[:, 0, 3, 3]).long()
    rule = feedback_alignment(model, matrices_of(model, feedback))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = train(model, (images, labels), optimiser=optimiser, steps=300, rule=rule)
    assert losses[-1] < 0.3 < math.log(2) < losses[0]

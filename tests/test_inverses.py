import pytest
import torch
from torch import nn

from paperlib.inverses import LinearInverse, activation_of, inverse_of, is_bounded
from paperlib.networks import Erf


def test_an_inverse_maps_a_stages_output_shape_to_its_input_shape() -> None:
    inverse = LinearInverse((7,), (2, 3, 4), nn.Tanh())
    assert inverse(torch.rand(5, 7)).shape == (5, 2, 3, 4)
    assert not inverse.affine
    assert LinearInverse((7,), (5,)).affine


@pytest.mark.parametrize("activation", [None, nn.Tanh(), Erf(), nn.ReLU()])
def test_gradients_are_those_of_the_mean_squared_error(activation: nn.Module | None) -> None:
    inverse = LinearInverse((7,), (2, 3), activation).double()
    codes, inputs = torch.randn(2, 5, 7).double(), torch.rand(2, 5, 2, 3).double()
    for batch in (0, 1):  # the second batch replaces the first one's gradients
        inverse.differentiate(codes[batch], inputs[batch])
        found = [parameter.grad.clone() for parameter in inverse.parameters()]
        loss = (inverse(codes[batch]) - inputs[batch]).square().mean()
        expected = torch.autograd.grad(loss, list(inverse.parameters()))
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other)


def test_an_assigned_solution_is_what_the_inverse_applies() -> None:
    inverse = LinearInverse((3,), (2,))
    weight, bias = torch.rand(2, 3), torch.rand(2)
    inverse.assign(weight, bias)
    codes = torch.rand(4, 3)
    assert torch.allclose(inverse(codes), codes @ weight.T + bias)


@pytest.mark.parametrize("activation", [nn.Tanh(), Erf()])
def test_targets_of_a_bounded_inverse_are_those_before_its_activation(
    activation: nn.Module,
) -> None:
    inverse = LinearInverse((3,), (2,), activation)
    before = torch.linspace(-1.5, 1.5, 8).view(4, 2)
    _, targets = inverse.regression(torch.rand(4, 3), activation(before))
    assert torch.allclose(targets, before, atol=1e-5)


def test_saturated_targets_stay_finite() -> None:
    _, targets = LinearInverse((1,), (1,), nn.Tanh()).regression(torch.ones(2, 1), torch.ones(2, 1))
    assert targets.isfinite().all()


def test_an_unbounded_activation_has_no_closed_form() -> None:
    with pytest.raises(ValueError, match="closed form needs an activation with an inverse"):
        LinearInverse((1,), (1,), nn.ReLU()).regression(torch.ones(2, 1), torch.ones(2, 1))


def test_a_stages_activation_is_the_one_that_it_ends_in() -> None:
    assert isinstance(activation_of(nn.Sequential(nn.Linear(2, 2), nn.ReLU())), nn.ReLU)
    assert isinstance(activation_of(nn.Tanh()), nn.Tanh)
    assert activation_of(nn.Linear(2, 2)) is None
    assert activation_of(nn.Sequential(nn.Tanh(), nn.Linear(2, 2))) is None
    assert is_bounded(nn.Sequential(nn.Linear(2, 2), nn.Tanh()))
    assert not is_bounded(nn.Sequential(nn.Tanh(), nn.Linear(2, 2)))
    assert not is_bounded(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))


@pytest.mark.parametrize("stage", [
    nn.LSTM(3, 3), nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), nn.ReLU()
])  # fmt: skip
def test_a_stage_without_a_known_inverse_is_named(stage: nn.Module) -> None:
    with pytest.raises(ValueError, match="no inverse is known for stage 4"):
        inverse_of(stage, "stage 4", output_shape=(3,), input_shape=(3,), activation=None)

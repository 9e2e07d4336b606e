import pytest
import torch
from torch import nn

from paperlib.cascade.linear import LinearInverse, Reshape, _tanh_
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


@pytest.mark.parametrize("size", [1e-4, 1.0, 10.0])
def test_the_tanh_of_a_training_is_tanh_within_float32(size: float) -> None:
    values = size * torch.linspace(-1, 1, 10_001)
    error = _tanh_(values.clone()).double() - torch.tanh(values.double())
    assert error.abs().max() < 2e-7
    assert torch.equal(_tanh_(values.double()), torch.tanh(values.double()))


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


def test_a_reshaping_stage_comes_back_exactly() -> None:
    images = torch.rand(4, 2, 3, 5)
    inverse = Reshape((30,), (2, 3, 5))
    assert torch.equal(inverse(nn.Flatten()(images)), images)
    assert inverse.affine


@pytest.mark.parametrize("inverse", [LinearInverse((7,), (2, 3)), Reshape((6,), (2, 3))])
def test_the_adjoint_multiplies_from_the_left(inverse: nn.Module) -> None:
    codes, rows = torch.rand(5, *inverse.output_shape), torch.rand(4, 2, 3)
    with torch.no_grad():
        linear = inverse(codes) - inverse(torch.zeros_like(codes))
        expected = rows.flatten(1) @ linear.flatten(1).T
        torch.testing.assert_close(inverse.adjoint(rows).flatten(1) @ codes.T, expected)

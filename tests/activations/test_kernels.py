"""Tangent kernels by parameter: explicit Jacobians, and memory that is bounded."""

import pytest
import torch
from test_gradients import MODELS, model_and_images
from torch import Tensor, nn

from paperlib.activations import gradients
from paperlib.activations.kernels import grams_by_goal, sample_grams, trace_gram


@pytest.mark.parametrize("memory", [2**30, 1])
@pytest.mark.parametrize("name", ["MLP", "CNN", "norms", "tied weights", "attention"])
def test_they_are_products_of_explicit_jacobians(name: str, memory: float) -> None:
    model, images = model_and_images(name)
    cotangent = torch.randn(model(images).shape[1:], dtype=torch.float64)
    found = sample_grams(model, images, cotangent=cotangent, memory=memory)
    assert list(found) == [key for key, _ in model.named_parameters()]
    for key, parameter in model.named_parameters():

        def scalar(value: Tensor, key: str = key) -> Tensor:
            outputs = torch.func.functional_call(model, {key: value}, (images,))
            return (outputs * cotangent).flatten(1).sum(1)

        rows = torch.autograd.functional.jacobian(scalar, parameter.detach()).flatten(1)
        torch.testing.assert_close(found[key], rows @ rows.T, rtol=1e-9, atol=1e-9)


def test_less_memory_takes_more_passes_and_one_is_enough_where_all_fits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passes: list[int] = []

    def counted(*arguments: object, **options: object) -> object:
        passes.append(1)
        return real(*arguments, **options)  # type: ignore[arg-type]

    real = gradients.Differentiated.gradients
    monkeypatch.setattr(gradients.Differentiated, "gradients", counted)
    model, images = model_and_images("MLP")
    sample_grams(model, images)
    assert len(passes) == 1
    passes.clear()
    sample_grams(model, images, memory=1)
    assert len(passes) == 4  # four layers


@pytest.mark.parametrize("memory", [2**30, 1])
@pytest.mark.parametrize("name", ["MLP", "CNN", "norms", "attention", "a layer twice, one unused"])
def test_several_goals_by_the_same_passes_are_each_as_alone(name: str, memory: float) -> None:
    model, images = model_and_images(name)
    cotangent = torch.randn(model(images).shape[1:], dtype=torch.float64)
    labels = torch.arange(len(images)) % 3
    goals = [(labels, None), (None, cotangent), (None, None)]
    if model(images).ndim != 2:
        goals = goals[1:]
    found = grams_by_goal(model, images, goals, memory=memory)
    for (given, contracted), grams in zip(goals, found, strict=True):
        alone = sample_grams(model, images, given, cotangent=contracted)
        assert list(grams) == list(alone)
        for key, gram in grams.items():
            torch.testing.assert_close(gram, alone[key], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("least", "memory", "expected"), [(None, 1, 5), (2, 1, 2), (3, 2**30, 5)])
def test_of_the_first_samples_as_many_are_taken_as_fit_where_that_is_wanted(
    least: int | None, memory: float, expected: int
) -> None:
    model, images = model_and_images("MLP")
    found = grams_by_goal(model, images, [(None, None)], memory=memory, least=least)[0]
    for key, gram in sample_grams(model, images).items():
        torch.testing.assert_close(found[key], gram[:expected, :expected], rtol=1e-10, atol=1e-12)


def test_labels_give_those_of_the_cross_entropy() -> None:
    model, images = model_and_images("MLP")
    labels = torch.arange(len(images)) % 3
    found = sum(sample_grams(model, images, labels).values())
    expected = gradients.per_sample_gradients(model, images, labels).gram()
    torch.testing.assert_close(found, expected)


def test_only_some_parameters_may_count() -> None:
    assert set(MODELS) >= {"norms"}
    model, images = model_and_images("norms")
    whole = gradients.per_sample_gradients(model, images)
    work = gradients.Differentiated(model, images, [(None, None)])
    some = work.gradients(only=["3.weight", "1.bias"])[0]
    assert some.names == ["1.bias", "3.weight"]
    for name, gram in some.grams().items():
        torch.testing.assert_close(gram, whole.grams()[name])


@pytest.mark.parametrize("name", ["MLP", "CNN"])
def test_the_trace_kernel_is_the_mean_over_outputs_of_products_of_jacobians(name: str) -> None:
    model, images = model_and_images(name)
    outputs = [0, 2]
    found = trace_gram(model, images, outputs)
    by_hand = torch.zeros(len(images), len(images), dtype=torch.float64)
    for output in outputs:
        rows = [
            torch.cat([g.flatten() for g in torch.autograd.grad(
                model(image[None])[0, output], list(model.parameters()))])
            for image in images
        ]  # fmt: skip
        by_hand += torch.stack(rows) @ torch.stack(rows).T / len(outputs)
    torch.testing.assert_close(found, by_hand)


def test_of_outputs_that_a_model_lacks_or_that_overflow_there_is_no_trace_kernel() -> None:
    model, images = model_and_images("MLP")
    assert trace_gram(model, images, [model(images).shape[1]]) is None
    with torch.no_grad():
        next(model.parameters()).fill_(float("inf"))
    assert trace_gram(model, images, [0]) is None


def test_batch_norms_of_a_trace_kernel_have_the_statistics_of_the_images_and_get_theirs_back() -> (
    None
):
    images = 5 + 3 * torch.randn(20, 4, dtype=torch.float64)
    norm = nn.BatchNorm1d(4, affine=False)
    model = nn.Sequential(norm, nn.Linear(4, 2)).double()
    found = trace_gram(model, images, [0, 1])
    scaled = (images - images.mean(0)) / (images.var(0) + norm.eps).sqrt()
    torch.testing.assert_close(found, scaled @ scaled.T + 1)
    assert torch.equal(norm.running_mean, torch.zeros(4, dtype=torch.float64))
    assert norm.momentum == 0.1

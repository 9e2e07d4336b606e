"""The training loop: against torch by hand, and what observers, schedules and rules see and do."""

import math

import pytest
import torch
from torch import Tensor, nn

from paperlib.training import (
    StopTraining,
    at,
    backpropagation,
    batches,
    every,
    squared_error,
    train,
)


def lessons(count: int = 50) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(count, 1, 3, 3, generator=generator)
    return images, (images.mean((1, 2, 3)) > 0.5).long()


def network(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(9, 8), nn.Tanh(), nn.Linear(8, 2))


def sgd(model: nn.Module, rate: float = 0.5) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=rate)


def test_a_training_is_torchs_own_loop() -> None:
    images, labels = lessons()
    ours, theirs = network(), network()
    losses = train(ours, (images, labels), optimiser=sgd(ours), steps=20, batch_size=8, seed=3)
    optimiser, order = sgd(theirs), batches(50, 8, 3)
    for step in range(20):
        chosen = next(order)
        loss = nn.functional.cross_entropy(theirs(images[chosen]), labels[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        assert losses[step] == loss.item()
    assert all(
        torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True)
    )


def test_every_image_is_seen_once_an_epoch_and_the_order_can_be_gone_through_again() -> None:
    first, second = batches(40, 8, 1), batches(40, 8, 1)
    epoch = [next(first) for _ in range(5)]
    assert sorted(torch.cat(epoch).tolist()) == list(range(40))
    assert all(torch.equal(batch, next(second)) for batch in epoch)
    assert not torch.equal(torch.cat(epoch), torch.cat([next(first) for _ in range(5)]))


def test_observers_see_the_network_before_the_first_step_and_after_each_one() -> None:
    model, seen = network(), []
    start = model[1].weight.clone()

    def look(step: int, given: nn.Module) -> None:
        assert given is model
        seen.append((step, torch.equal(model[1].weight, start)))

    train(model, lessons(), optimiser=sgd(model), steps=3, observers=[look])
    assert seen == [(0, True), (1, False), (2, False), (3, False)]


def test_observers_may_look_every_few_steps_or_at_chosen_ones() -> None:
    model, often, chosen = network(), [], []
    train(
        model,
        lessons(),
        optimiser=sgd(model),
        steps=7,
        observers=[
            every(3, lambda step, _: often.append(step)),
            at({0, 5, 99}, lambda step, _: chosen.append(step)),
        ],
    )
    assert (often, chosen) == ([0, 3, 6], [0, 5])


def test_observers_change_no_number() -> None:
    plain, watched = network(), network()
    expected = train(plain, lessons(), optimiser=sgd(plain), steps=9)
    found = train(watched, lessons(), optimiser=sgd(watched), steps=9, observers=[lambda *_: None])
    assert found == expected


def test_an_observer_may_end_the_training() -> None:
    def enough(step: int, _: nn.Module) -> None:
        if step == 4:
            raise StopTraining

    model = network()
    assert len(train(model, lessons(), optimiser=sgd(model), steps=9, observers=[enough])) == 4


def test_an_observers_other_errors_are_not_hidden() -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the observer's own")

    model = network()
    with pytest.raises(RuntimeError, match="the observer's own"):
        train(model, lessons(), optimiser=sgd(model), steps=2, observers=[broken])


def test_a_schedule_of_torchs_is_stepped_after_every_batch() -> None:
    model, rates = network(), []
    optimiser = sgd(model, 1.0)
    schedule = torch.optim.lr_scheduler.StepLR(optimiser, step_size=2, gamma=0.1)
    look = lambda *_: rates.append(optimiser.param_groups[0]["lr"])  # noqa: E731
    train(model, lessons(), optimiser=optimiser, steps=4, schedule=schedule, observers=[look])
    assert rates == pytest.approx([1.0, 1.0, 0.1, 0.1, 0.01])


def test_a_rule_says_how_errors_become_gradients() -> None:
    def uphill(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        loss = backpropagation(model, images, labels)
        for parameter in model.parameters():
            parameter.grad.neg_()
        return loss

    model = network()
    losses = train(model, lessons(), optimiser=sgd(model), steps=30, rule=uphill)
    assert losses[-1] > 2 * losses[0]


def test_the_squared_error_is_half_a_mean_of_sums_with_its_gradient() -> None:
    model, (images, _) = network(), lessons()
    targets = images.flatten(1)[:, :2]
    loss = squared_error(model, images, targets)
    residuals = model(images) - targets
    assert float(loss) == pytest.approx(residuals.square().sum().item() / 2 / len(images))
    (expected,) = torch.autograd.grad(residuals, model[-1].bias, residuals.detach() / len(images))
    torch.testing.assert_close(model[-1].bias.grad, expected)
    assert not loss.requires_grad


def test_a_loss_that_is_no_number_ends_the_training() -> None:
    model = network()
    losses = train(model[3], (1e20 * torch.ones(9, 8), torch.arange(9) % 2),
                   optimiser=sgd(model, 1e30), steps=50)  # fmt: skip
    assert len(losses) < 10
    assert not math.isfinite(losses[-1])


def test_batches_of_ones_own_are_taken_in_their_order_to_their_end() -> None:
    images, labels = lessons(30)
    model, seen = network(), []

    def rule(given: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        seen.append(len(labels))
        return backpropagation(given, images, labels)

    own = [(images[:20], labels[:20]), (images[20:], labels[20:])]
    train(model, own, optimiser=sgd(model), rule=rule)
    train(model, iter(own), optimiser=sgd(model), rule=rule, steps=1)
    assert seen == [20, 10, 20]


def test_the_global_generator_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    model = network()
    train(model, lessons(), optimiser=sgd(model), steps=3)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(("options", "message"), [
    ({}, "steps must say how many batches"),
    ({"steps": -1}, "steps must be >= 0, got -1"),
    ({"steps": 1, "batch_size": 0}, "batch_size must be >= 1, got 0"),
])  # fmt: skip
def test_a_bad_argument_is_named(options: dict, message: str) -> None:
    model = network()
    with pytest.raises(ValueError, match=message):
        train(model, lessons(), optimiser=sgd(model), **options)
    with pytest.raises(ValueError, match="count must be >= 1, got 0"):
        every(0, lambda *_: None)

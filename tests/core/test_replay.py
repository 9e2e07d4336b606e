"""Steps that a GPU records; on a CPU they are the steps themselves."""

from functools import partial

import pytest
import torch
from torch import Tensor

from paperlib.core.replay import WARM_UP, Replayed, exact_products, on_streams


def test_a_cpu_takes_every_step_itself() -> None:
    taken: list[int] = []
    step = Replayed(lambda values: taken.append(len(values)) or values.sum())
    sums = [float(step(torch.ones(count))) for count in (3, 3, 2, 3, 3, 3)]
    assert sums == taken == [3, 3, 2, 3, 3, 3]


def test_convolutions_are_exact_in_the_context_only() -> None:
    before = torch.backends.cudnn.allow_tf32
    with exact_products():
        assert not torch.backends.cudnn.allow_tf32
        assert torch.backends.cudnn.enabled
    assert torch.backends.cudnn.allow_tf32 == before


def test_calls_on_streams_return_in_their_order_and_raise() -> None:
    assert on_streams([lambda n=n: n**2 for n in range(9)], "cpu") == [n**2 for n in range(9)]
    assert on_streams([], "cuda") == []
    with pytest.raises(ZeroDivisionError):
        on_streams([lambda: 1 / 0], "cpu")


@pytest.mark.gpu
def test_calls_on_streams_of_a_gpu_return_what_they_return_alone() -> None:
    matrices = [
        torch.rand(300, 300, device="cuda") + 300 * torch.eye(300, device="cuda") for _ in range(12)
    ]
    calls = [partial(lambda m: torch.linalg.inv(m).cpu(), matrix) for matrix in matrices]
    for matrix, found in zip(matrices, on_streams(calls, "cuda"), strict=True):
        assert torch.equal(found, torch.linalg.inv(matrix).cpu())


@pytest.mark.gpu
def test_a_gpu_replays_what_the_steps_would_have_done() -> None:
    """Adam of a linear layer, with batches of which one is smaller than the others."""

    def trained(replayed: bool) -> tuple[Tensor, list[float], int]:
        torch.manual_seed(0)
        layer, calls = torch.nn.Linear(5, 3, device="cuda"), [0]
        optimiser = torch.optim.Adam(layer.parameters(), capturable=True)

        def step(values: Tensor) -> Tensor:
            calls[0] += 1
            optimiser.zero_grad()
            loss = layer(values).square().mean()
            loss.backward()
            optimiser.step()
            return loss.detach()

        take = Replayed(step) if replayed else step
        batches = [torch.rand(4 if number == 6 else 8, 5, device="cuda") for number in range(12)]
        losses = [float(take(batch)) for batch in batches]
        return layer.weight.detach(), losses, calls[0]

    weights, losses, calls = trained(True)
    expected, plainly, each = trained(False)
    torch.testing.assert_close(weights, expected, rtol=0, atol=1e-6)
    assert losses == pytest.approx(plainly, rel=1e-5)
    assert each == 12
    assert calls == WARM_UP + 2  # the smaller batch, and the recording

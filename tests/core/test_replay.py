"""Steps that a GPU records; on a CPU they are the steps themselves."""

import pytest
import torch
from torch import Tensor

from paperlib.core.replay import WARM_UP, Replayed, exact_products


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

"""Sample sets: closed forms of a node's bit, the path sum, and a step of SGD as it happens."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import mutual_info_score
from torch import nn

from paperlib.activations.factors import recorded_calls, slopes_of
from paperlib.datasets import load_dataset
from paperlib.instruments import sample_sets
from paperlib.instruments.sample_sets import (
    Settings,
    distinct_codes,
    node_measures,
    predicted_sets,
    rule_agreement,
)
from paperlib.networks import initialise

CLASSES = torch.arange(10).repeat_interleave(30)
SMALL = Settings(
    dataset="digits", depths=(2, 3), widths=(12,), networks=1, steps=6, looks=3, variances=(2.0,),
    untrained_depth=3, untrained_width=20, fitted=40, train_images=100, test_images=60,
)  # fmt: skip


def measured(active: torch.Tensor) -> dict[str, float]:
    found = node_measures(active[:, None], CLASSES, 10)
    return {name: float(values) for name, values in found.items()}


def bits(share: float) -> float:
    return -share * math.log2(share) - (1 - share) * math.log2(1 - share)


def test_a_node_of_one_class_is_predicted_by_it_and_says_half_a_bit() -> None:
    found = measured(CLASSES == 3)
    assert found["fraction"] == pytest.approx(0.1)
    assert found["predictability"] == pytest.approx(1)
    assert found["information"] == pytest.approx(bits(0.1))
    assert found["informativeness"] == pytest.approx(0.141, abs=0.0005)


def test_a_node_of_half_of_the_classes_says_a_bit_the_most_there_is() -> None:
    found = measured(CLASSES < 5)
    assert found["predictability"] == pytest.approx(1)
    assert found["information"] == found["share"] == pytest.approx(1)
    assert found["informativeness"] == pytest.approx(1 / math.log2(10))
    assert found["informativeness"] == pytest.approx(0.301, abs=0.0005)
    data = load_dataset("digits", limit=300)
    assert sample_sets._ceiling(data, 300) == pytest.approx(0.301, abs=0.01)


def test_a_node_that_knows_no_class_says_nothing() -> None:
    found = measured(torch.arange(300) % 3 == 0)
    assert found["predictability"] == pytest.approx(1 - bits(1 / 3))
    assert found["information"] == pytest.approx(0, abs=1e-12)
    assert found["informativeness"] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("always", [True, False])
def test_a_constant_node_is_perfectly_predictable_and_says_nothing(always: bool) -> None:
    found = measured(torch.full((300,), always))
    assert found["constant"] == 1
    assert found["predictability"] == 1
    assert found["information"] == found["share"] == 0


def test_information_is_that_of_scikit_learn() -> None:
    active = torch.rand(300, 4, generator=torch.Generator().manual_seed(0)) < 0.1 * (
        CLASSES[:, None] + 0.5
    )
    found = node_measures(active, CLASSES, 10)["information"]
    plain = [mutual_info_score(CLASSES, row) / math.log(2) for row in active.T]
    np.testing.assert_allclose(found, plain, rtol=1e-10)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(node_measures(active, order[CLASSES], 10)["information"], found)


def tiny(seed: int = 0) -> nn.Sequential:
    """5-4-4-3-2 with ReLU, in float64."""
    sizes = (5, 4, 4, 3, 2)
    layers = [nn.Linear(a, b) for a, b in itertools.pairwise(sizes)]
    network = nn.Sequential(*itertools.chain(*((layer, nn.ReLU()) for layer in layers)))[:-1]
    initialise(network, sigma_w2=2.0, sigma_b2=0.1, seed=seed)
    return network.double()


def test_the_sum_over_active_paths_is_the_slope_of_the_loss() -> None:
    network = tiny()
    images = torch.randn(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.tensor([0, 1, 0, 1, 1, 0])
    layers = list(network[::2])
    with recorded_calls(layers) as calls:
        logits = network(images)
        total = nn.functional.cross_entropy(logits, labels, reduction="sum")
    slopes = slopes_of(total, calls)
    active = [call.outputs > 0 for call in calls]
    ends = torch.softmax(logits.detach(), 1) - nn.functional.one_hot(labels, 2)
    weights = [layer.weight for layer in layers]
    compared = 0
    for level, image in itertools.product(range(3), range(6)):
        for node in range(len(weights[level])):
            if not active[level][image, node]:
                assert slopes[level][image, node] == 0
                continue
            later = [range(len(w)) for w in weights[level + 1 :]]
            found = 0.0
            for path in itertools.product(*later):
                nodes = (node, *path)
                product = float(ends[image, path[-1]])
                for step, (source, target) in enumerate(itertools.pairwise(nodes), level + 1):
                    product *= float(weights[step][target, source])
                    product *= 1 if step == 3 else float(active[step][image, target])
                found += product
            assert found == pytest.approx(float(slopes[level][image, node]), abs=1e-12)
            compared += 1
    assert compared > 20


def test_the_rule_gives_the_first_layers_sets_after_a_step_of_sgd() -> None:
    network = tiny(1)
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(500, 5, generator=generator, dtype=torch.float64)
    batch, labels = images[:20], torch.arange(20) % 2
    layers = list(network[::2])
    with recorded_calls(layers) as calls:
        total = nn.functional.cross_entropy(network(batch), labels, reduction="sum")
    slopes = slopes_of(total, calls)
    found = predicted_sets(images, layers[0], batch, slopes[0], 0.05)
    after = copy.deepcopy(network)
    optimiser = torch.optim.SGD(after.parameters(), lr=0.05)
    nn.functional.cross_entropy(after(batch), labels, reduction="sum").backward()
    optimiser.step()
    true = after[0](images) > 0
    assert (found == true).all()
    assert (true != (layers[0](images) > 0)).any()


def test_the_rule_is_exact_in_a_deeper_layer_too_if_only_that_one_moves() -> None:
    network = tiny(2)
    generator = torch.Generator().manual_seed(4)
    images = torch.randn(500, 5, generator=generator, dtype=torch.float64)
    layers = list(network[::2])
    with recorded_calls(layers) as calls:
        logits = network(images[:30])
        total = nn.functional.cross_entropy(logits, torch.arange(30) % 2, reduction="sum")
    slope = slopes_of(total, calls)[1]
    inputs = torch.relu(layers[0](images)).detach()
    found = predicted_sets(inputs, layers[1], calls[1].inputs, slope, 0.05)
    optimiser = torch.optim.SGD(layers[1].parameters(), lr=0.05)
    total.backward()
    before = layers[1](inputs) > 0
    optimiser.step()
    assert (found == (layers[1](inputs) > 0)).all()
    assert (found != before).any()


@pytest.mark.parametrize("kind", sample_sets.LOSSES)
def test_agreement_is_whole_in_the_first_layer_and_leaves_the_network_alone(kind: str) -> None:
    data = load_dataset("digits", limit=200)
    network = sample_sets._network(data, 3, 30, 0)
    before = [weight.detach().clone() for weight in network.parameters()]
    images, labels = data.floats("train"), data.labels("train")
    found = rule_agreement(network, images, (images[:64], labels[:64]), kind, 3e-3)
    assert found[0] > 0.99  # but for float32's rounding at the border of a set
    assert all(0 <= share <= 1 for share in found[1:])
    assert all(map(torch.equal, before, network.parameters()))


def test_squares_are_of_outputs_or_of_a_softmax_that_sees_no_shift_of_all_outputs() -> None:
    outputs, labels = torch.tensor([[0.0, math.log(3)], [1.0, 1.0]]), torch.tensor([1, 0])
    shares = ((0.25, 0.75), (0.5, 0.5))
    expected = sum((one - (c == t)) ** 2 / 2 for row, t in zip(shares, (1, 0), strict=True)
                   for c, one in enumerate(row))  # fmt: skip
    for shift in (0.0, 5.0):
        found = float(sample_sets._loss("softmax squares", outputs + shift, labels))
        assert found == pytest.approx(expected)
    plain = float(sample_sets._loss("squares", outputs, labels))
    assert plain == pytest.approx(((math.log(3) - 1) ** 2 + 1) / 2)


def test_scaling_a_layer_changes_no_set_and_a_sign_turns_it_around() -> None:
    data = load_dataset("digits", limit=50)
    network, images = sample_sets._network(data, 2, 15, 0), data.floats("test")
    (first, second) = sample_sets._active(network, images)
    with torch.no_grad():
        sample_sets._layers(network)[0].weight *= 4
    assert all(map(torch.equal, (first, second), sample_sets._active(network, images)))
    with torch.no_grad():
        sample_sets._layers(network)[0].weight *= -1
    assert torch.equal(sample_sets._active(network, images)[0], ~first)


def test_nodes_of_random_layers_are_active_for_half_of_inputs_without_a_mean() -> None:
    data = load_dataset("digits", limit=5)
    network = sample_sets._network(data, 1, 2000, 0)
    images = torch.randn(200, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    (active,) = sample_sets._active(network, images)
    assert float(active.double().mean()) == pytest.approx(0.5, abs=0.01)


def test_codes_are_counted_as_rows() -> None:
    rows = torch.tensor([[1, 0, 0], [1, 0, 0], [0, 1, 1], [0, 1, 0]]).bool()
    assert distinct_codes(rows) == 3
    assert distinct_codes(rows.repeat(3, 7)) == 3


def test_a_measurement_holds_every_network_and_no_layer_beyond_its_depth() -> None:
    result = sample_sets.measure(SMALL, load_dataset("digits", limit=100))
    assert result["fraction"].dims == ("loss", "depth", "width", "network", "step", "layer")
    assert result["step"].values.tolist() == [0, 1, 2, 6]
    assert result["fraction"].sel(depth=2, layer=3).isnull().all()
    assert result["fraction"].sel(depth=3).notnull().all()
    assert (result["informativeness"].max() <= result["ceiling"] + 1e-9).all()
    assert result["codes"].max() <= 1
    assert sample_sets.scores(result)["codes"].shape == (1,)

"""The zoo by number: the same for ever, within its limits, and made of what it says."""

import hashlib
import math
from collections import Counter
from functools import cache

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from paperlib.networks import Network, zoo
from paperlib.networks.zoo import (
    DEAREST,
    DEPTHS,
    FAMILIES,
    WIDTHS,
    describe,
    hard_numbers,
    zoo_network,
)
from paperlib.networks.zoo_blocks import ACTIVATIONS, AcrossTokens, Attention, Patches, Rows
from paperlib.networks.zoo_weights import PRESERVING_GAIN, SCHEMES, ZEROED, draw_weights, layers_of

FROZEN = "6ed0522b06e1a30b"
PLAIN = {"bias": 0.0, "zeroed": "none", "odd_layer": 1.0, "scheme": "default"}
ORDINARY = [
    d
    for d in map(describe, range(150))
    if all(getattr(d, name) == value for name, value in PLAIN.items())
]


@cache
def many() -> list[zoo.ZooDescription]:
    return [describe(number) for number in range(1500)]


def numbers(network: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()])


@pytest.mark.slow
def test_numbers_stand_for_the_same_networks_for_ever() -> None:
    """A change here means that every zoo result is of other networks: raise the code version."""
    described = "\n".join(repr(d) for d in many()[:300])
    assert hashlib.sha256(described.encode()).hexdigest()[:16] == FROZEN


@pytest.mark.parametrize("number", range(14))
def test_a_network_has_the_same_weights_each_time_and_touches_no_generator(number: int) -> None:
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    first = numbers(zoo_network(number))
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(numbers(zoo_network(number)), first)
    other = numbers(zoo_network(number + len(FAMILIES)))
    assert other.shape != first.shape or not torch.equal(other, first)


@pytest.mark.parametrize("shape", [(1, 28, 28), (1, 32, 32), (3, 9, 7)])
@pytest.mark.parametrize("number", range(21))
def test_a_network_takes_images_of_any_shape(number: int, shape: tuple[int, int, int]) -> None:
    network = zoo_network(number, shape, 4)
    assert isinstance(network, Network)
    assert network(torch.rand(3, *shape)).shape == (3, 4)
    assert describe(number).family == FAMILIES[number % len(FAMILIES)]


@pytest.mark.parametrize("d", ORDINARY[:20], ids=str)
def test_an_ordinary_network_has_finite_logits_and_gradients(d: zoo.ZooDescription) -> None:
    network = zoo_network(d.number)
    logits = network(torch.rand(8, 1, 28, 28))
    logits.square().sum().backward()
    assert logits.isfinite().all()
    assert d.depth > 20 or logits.std(0).max() > 0  # default weights lose the image by and by
    gradients = [p.grad for p in network.parameters()]
    assert all(g is not None and g.isfinite().all() for g in gradients)


def test_sizes_are_within_their_limits_and_spread_over_them() -> None:
    for d in many():
        low, high = DEPTHS[d.family]
        assert low <= d.depth <= high
        assert 16 <= d.width <= WIDTHS
        assert zoo.step_cost(d) <= DEAREST * 1.1  # widths are rounded
    depths = sorted(d.depth for d in many() if d.family == "mlp")
    assert depths[0] == 2
    assert depths[-1] >= 90
    assert 14 <= depths[len(depths) // 2] <= 30  # deeper than the root of 2 × 100
    assert max(d.width for d in many()) >= 280


@pytest.mark.parametrize("name", ["activation", "scheme", "zeroed", "cell", "norm", "placement"])
def test_every_kind_occurs(name: str) -> None:
    kinds = {
        "activation": set(ACTIVATIONS), "scheme": set(SCHEMES), "zeroed": set(ZEROED),
        "cell": {"", "rnn", "gru", "lstm"}, "norm": {"none", "batch", "layer"},
        "placement": {"none", "pre", "post"},
    }  # fmt: skip
    found = Counter(getattr(d, name) for d in many()[:300])
    assert set(found) == kinds[name]


def test_activations_are_at_least_nine() -> None:
    assert len(ACTIVATIONS) >= 9


@pytest.mark.parametrize("number", [-1, 0.5, "3", True, 2**63])
def test_no_other_numbers_are_taken(number: object) -> None:
    with pytest.raises(ValueError, match="number must be"):
        zoo_network(number)  # type: ignore[arg-type]


# --- costs


@pytest.mark.parametrize("number", [n for n in range(21) if describe(n).family != "recurrent"])
def test_multiplications_are_those_that_torch_counts(number: int) -> None:
    network = zoo_network(number).eval()  # one image has no batch statistics
    with FlopCounterMode(display=False) as counter:
        network(torch.rand(1, 1, 28, 28))
    counted = counter.get_total_flops() / 2
    # stems of tokens and heads are left out
    assert zoo._multiplications(describe(number)) == pytest.approx(counted, rel=0.25)


def test_multiplications_of_a_recurrent_network_are_those_of_its_matrices() -> None:
    for d in many()[:100]:
        if d.family == "recurrent":
            weights = [w for w, _ in layers_of(zoo_network(d.number).stages)]
            assert zoo._multiplications(d) == 28 / d.rows * sum(w.numel() for w in weights)


# --- blocks


def test_rows_are_the_rows_of_the_image() -> None:
    images = torch.rand(2, 3, 4, 5)
    tokens = Rows(1)(images)
    assert tokens.shape == (2, 4, 15)
    assert torch.equal(tokens[1, 2], images[1, :, 2].flatten())
    pairs = Rows(2)(images[:, :, :3])
    assert pairs.shape == (2, 2, 30)
    assert torch.equal(pairs[1, 0], images[1, :, :2].flatten())
    assert torch.equal(pairs[1, 1].view(3, 2, 5)[:, 0], images[1, :, 2])
    assert not pairs[1, 1].view(3, 2, 5)[:, 1].any()


def test_patches_are_cut_from_the_image_filled_up_with_zeros() -> None:
    images = torch.rand(2, 1, 5, 4)
    tokens = Patches(2)(images)
    assert tokens.shape == (2, 6, 4)
    assert torch.equal(tokens[0, 1], images[0, 0, :2, 2:].flatten())
    assert torch.equal(tokens[1, 4], torch.tensor([*images[1, 0, 4, :2], 0, 0]))


def test_attention_is_torchs() -> None:
    layer = Attention(12, 3).double()
    x = torch.rand(2, 5, 12, dtype=torch.float64)
    theirs = nn.MultiheadAttention(12, 3, batch_first=True).double()
    parts = [layer.query, layer.key, layer.value]
    theirs.load_state_dict(
        {
            "in_proj_weight": torch.cat([p.weight for p in parts]),
            "in_proj_bias": torch.cat([p.bias for p in parts]),
            "out_proj.weight": layer.out.weight,
            "out_proj.bias": layer.out.bias,
        }
    )
    torch.testing.assert_close(layer(x), theirs(x, x, x)[0])


def test_a_body_across_tokens_mixes_tokens_only() -> None:
    x = torch.rand(2, 5, 3)
    torch.testing.assert_close(
        AcrossTokens(nn.Linear(5, 4, bias=False))(x).shape, torch.Size([2, 4, 3])
    )
    summed = AcrossTokens(nn.LPPool1d(1, 5))(x)
    torch.testing.assert_close(summed[:, 0], x.sum(1))


# --- weights


def of(**changes: object) -> zoo.ZooDescription:
    fields = {"number": 0, "family": "mlp", "depth": 3, "width": 200, "activation": "relu"}
    return zoo.ZooDescription(**{**fields, **changes})  # type: ignore[arg-type]


def drawn(d: zoo.ZooDescription) -> Network:
    stages, head = zoo.BUILDERS[d.family](d, (1, 28, 28), 10)
    network = Network(nn.Sequential(*stages), head, image_shape=(1, 28, 28))
    draw_weights(network, d, torch.Generator().manual_seed(0))
    return network


@pytest.mark.parametrize(
    ("scheme", "deviations"),
    [
        ("normal", (2 / 784**0.5, 2 / 200**0.5)),
        ("fan_out", (2 / 200**0.5, 2 / 200**0.5)),
        ("fixed", (0.2, 0.2)),
        ("orthogonal", (2 / 784**0.5, 2 / 200**0.5)),
        ("sparse", ((0.1 * 4 / 784) ** 0.5, (0.1 * 4 / 200) ** 0.5)),
        ("constant", (0.01 * 2 / 784, 0.01 * 2 / 200)),
    ],
)
def test_weights_have_the_deviations_of_their_scheme(
    scheme: str, deviations: tuple[float, float]
) -> None:
    layers = layers_of(drawn(of(scheme=scheme, gain=2.0)))
    assert len(layers) == 4
    for (weight, (bias,)), deviation in zip(layers, deviations, strict=False):
        assert float(weight.detach().std()) == pytest.approx(deviation, rel=0.05)
        assert not bias.any()


def test_orthogonal_weights_are_orthogonal() -> None:
    weight = layers_of(drawn(of(scheme="orthogonal", gain=3.0)))[1][0]
    torch.testing.assert_close(weight @ weight.T, 9 * torch.eye(200), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_preserving_gain_keeps_the_size_of_a_normal_signal(activation: str) -> None:
    z = torch.linspace(-12, 12, 100_001, dtype=torch.float64)
    weight = torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) * (z[1] - z[0])
    mean_square = float((weight * ACTIVATIONS[activation]()(z) ** 2).sum())
    assert PRESERVING_GAIN[activation] ** 2 * mean_square == pytest.approx(1, abs=0.01)


def test_biases_have_their_own_deviation() -> None:
    biases = torch.cat([b.flatten() for _, bs in layers_of(drawn(of(bias=5.0))) for b in bs])
    assert float(biases.detach().std()) == pytest.approx(5, rel=0.1)


@pytest.mark.parametrize(("which", "place"), [("first", 0), ("middle", 2), ("head", 3)])
def test_zeroed_weights_are_where_the_description_says(which: str, place: int) -> None:
    zeros = [not weight.any() for weight, _ in layers_of(drawn(of(zeroed=which)))]
    assert zeros == [number == place for number in range(4)]


@pytest.mark.parametrize("family", ["residual mlp", "residual cnn", "transformer", "mixer"])
def test_a_residual_network_with_zeroed_branches_is_its_stem(family: str) -> None:
    shape = {"pooling": "mean", "stride": 4, "rows": 2, "heads": 2}
    d = of(family=family, width=16, branch=1.0, placement="pre", zeroed="branches", bias=0.0)
    d = zoo.replace(d, scheme="normal", **shape)
    network = drawn(d)
    stem = len(network.stages) - d.depth
    x = network.stages[:stem](torch.rand(2, 1, 28, 28))
    torch.testing.assert_close(network.stages[stem:](x), x)


def test_one_odd_layer_is_scaled() -> None:
    plain, odd = (layers_of(drawn(of(scheme="normal", odd_layer=o))) for o in (1.0, 100.0))
    factors = [float(b.norm() / a.norm()) for (a, _), (b, _) in zip(plain, odd, strict=True)]
    assert sorted(round(f, 3) for f in factors) == [1, 1, 1, 100]


def test_a_network_says_what_it_is() -> None:
    assert str(of(norm="batch", placement="post", gain=2.0, scheme="normal", bias=3.0)) == (
        "0: mlp of depth 3 and width 200, relu, post-batch norm, normal weights of gain 2, "
        "biases of deviation 3"
    )


def test_hard_numbers_are_deep_without_a_norm_before_and_as_many_of_each_family() -> None:
    found = [describe(number) for number in hard_numbers(2, first=100)]
    assert all(d.number >= 100 and d.depth >= 8 and d.placement != "pre" for d in found)
    families = [d.family for d in found]
    assert {families.count(family) for family in set(families)} == {2}
    assert set(families) == {*FAMILIES} - {"recurrent"}
    assert set(hard_numbers(1, first=100)) < {d.number for d in found}

"""The information plane: the published labels, the solved unit, and networks rounded inside."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr

from paperlib.activations.looking import features, look
from paperlib.datasets import load_dataset
from paperlib.instruments import information_plane
from paperlib.instruments.information_plane import (
    Settings,
    Stack,
    added_information,
    dead,
    depths,
    falls,
    icosahedron,
    scores,
    violations,
)
from paperlib.measures.information import (
    information,
    mean_field_information,
    minimal_model,
    noisy,
    patterns,
)
from paperlib.networks import initialise, mlp

SMALL = Settings(
    dataset="digits", hidden=(6, 4, 3), networks=2, epochs=3, looks=3, bins=9, widths=(0.07, 1.0),
    pairs=64, variances=(0.3, 3.0), untrained_depth=12, untrained_width=30, train_images=60,
    test_images=40,
)  # fmt: skip
ONES = (0, 0, 0, 0, 0, 60, 532, 732, 495, 220, 66, 12, 1)  # by the number of bits, as published


@pytest.fixture(scope="module")
def small() -> xr.Dataset:
    return information_plane.measure(SMALL, load_dataset("digits", limit=100))


# --- the inputs


def test_all_inputs_have_the_published_number_of_ones() -> None:
    inputs, labels = icosahedron()
    assert len(np.unique(inputs, axis=0)) == 4096
    counts = np.bincount(inputs.sum(1).astype(int)[labels == 1], minlength=13)
    assert tuple(counts) == ONES
    assert labels.sum() == 2118
    assert information(labels[:, None], labels)[1] == pytest.approx(0.99916, abs=5e-6)


def test_labels_are_the_same_however_the_icosahedron_is_turned() -> None:
    """A rotation by 72° about a vertex permutes the others: 5 neighbours, and 5 further ones."""
    golden = (1 + math.sqrt(5)) / 2
    vertices = np.array([np.roll((0, a, b), turn) for a in (1, -1) for b in (golden, -golden)
                         for turn in range(3)])  # fmt: skip
    axis = vertices[0] / np.linalg.norm(vertices[0])
    cross = np.cross(np.eye(3), axis)
    angle = 2 * math.pi / 5
    turn = np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross
    order = np.abs((vertices @ turn)[:, None] - vertices).sum(-1).argmin(1)
    assert sorted(order) == list(range(12))
    assert (order != np.arange(12)).sum() == 10
    inputs, labels = icosahedron()
    places = inputs[:, order].astype(int) @ 2 ** np.arange(12)
    assert (labels[places] == labels).all()


# --- the solved unit


@pytest.mark.parametrize(
    ("weight", "tanh", "relu", "linear", "noise"),
    [
        (0.1, 2.645, 1.144, 2.658, 1.730),
        (1, 4.877, 3.325, 5.954, 4.984),
        (2, 4.157, 3.888, 6.954, 5.983),
        (10, 2.044, 5.114, 9.276, 8.305),
        (100, 1.151, 6.796, 12.598, 11.627),
    ],
)
def test_one_unit_holds_the_bits_of_its_closed_form(
    weight: float, tanh: float, relu: float, linear: float, noise: float
) -> None:
    found = minimal_model(weight)
    expected = {"tanh": tanh, "relu": relu, "linear": linear, "linear + noise": noise}
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-3)
    assert found["relu, own range"] == pytest.approx(2.725, abs=1e-3)


def test_the_solved_unit_of_tanh_is_largest_at_087_with_49_bits() -> None:
    weights = np.linspace(0.5, 1.5, 1001)
    bits = [minimal_model(weight)["tanh"] for weight in weights]
    assert max(bits) == pytest.approx(4.900, abs=5e-4)
    assert weights[int(np.argmax(bits))] == pytest.approx(0.87, abs=0.005)


def test_the_solved_unit_is_what_bins_find_in_many_draws() -> None:
    numbers = np.random.default_rng(0).standard_normal(400_000)
    sample = np.tanh(0.871 * numbers)
    share = np.histogram(sample, np.linspace(-1, 1, 31))[0] / len(sample)
    assert -(share * np.log2(share)).sum() == pytest.approx(minimal_model(0.871)["tanh"], abs=1e-3)
    steps = np.unique(np.floor(15 * np.maximum(2 * numbers, 0)), return_counts=True)[1]
    share = steps / len(numbers)
    assert -(share * np.log2(share)).sum() == pytest.approx(minimal_model(2)["relu"], abs=2e-3)


def test_inputs_that_are_all_as_far_apart_have_the_mean_field_information() -> None:
    corners = torch.eye(16).double() * 0.05  # squared distance 2 · 0.05²
    upper = noisy(corners, torch.zeros(16, dtype=torch.int64), 1e-3)[1]
    assert upper == pytest.approx(mean_field_information(2 * 0.05**2, 16, 1e-3))
    assert mean_field_information(1e9, 16, 1e-3) == pytest.approx(4)
    assert mean_field_information(0.0, 16, 1e-3) == pytest.approx(0)


# --- networks


def test_networks_side_by_side_are_those_networks() -> None:
    """Each against its weights in plain NumPy; the second half with activations rounded."""
    stack = Stack(SMALL).eval()
    inputs = torch.from_numpy(icosahedron()[0])
    found = stack(inputs).mT.detach().numpy()
    assert found.shape == (8, 4096, 2)
    for number in range(8):
        x, relu, inside = inputs.numpy(), number // 2 % 2, number >= 4
        for layer in stack.layers:
            x = x @ layer[0].weight[number].detach().numpy().T
            if layer is not stack.layers[-1]:
                x = np.maximum(x, 0) if relu else np.tanh(x)
            if inside:
                low, step = x.min(), (x.max() - x.min()) / 255
                x = low + np.round((x - low) / step) * step
        close = np.abs(found[number] - x) < (0.05 if inside else 1e-5)
        assert close.mean() > 0.99


def test_networks_of_one_seed_begin_alike_and_those_of_two_do_not() -> None:
    weights = Stack(SMALL).layers[1][0].weight
    assert torch.equal(weights[0], weights[2])  # tanh and relu of the first seed
    assert torch.equal(weights[0], weights[4])  # and those that are rounded inside
    assert not torch.equal(weights[0], weights[1])


def test_rounding_inside_leaves_as_many_values_and_the_gradient_as_it_was() -> None:
    rounded = information_plane._Rounded(2)
    x = torch.linspace(-1, 1, 90).reshape(2, 45, 1).requires_grad_()
    out = rounded(x)
    out.sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))
    assert torch.equal(out[0], x[0])
    assert len(rounded.eval()(x)[1].unique()) == 4


def test_what_is_rounded_inside_never_gains_information_with_depth(small: xr.Dataset) -> None:
    counts = violations(small)
    assert counts.dims == ("estimator", "activation")
    assert int(counts.sel(estimator="exact").sum()) == 0


def test_of_what_is_rounded_inside_equal_inputs_of_a_layer_are_equal_after_it() -> None:
    stack = Stack(Settings(bits=3))
    inputs = torch.from_numpy(icosahedron()[0])
    layers = [values.transpose(0, 1) for _, values in look(stack, inputs, batch_size=4096)]
    bits = [information(patterns(each.numpy()), icosahedron()[1])[0][10:] for each in layers]
    assert all((np.diff(bits, axis=0) <= 1e-12).ravel())
    assert bits[-1].max() < 12


def test_estimates_keep_within_the_label_and_log_n(small: xr.Dataset) -> None:
    known, label = small["information"], small["label"]
    capped = known.drop_sel(estimator="gaussian")
    assert float(capped.max()) <= 12 + 1e-9
    assert float(label.max()) <= float(small["entropy"]) + 1e-6
    bins = ["width", "range", "quantile", "float32", "exact"]
    assert bool((label <= known + 1e-9).sel(estimator=bins).all())
    assert bool((known.sel(estimator="noise_low") <= known.sel(estimator="noise") + 1e-9).all())


def test_bins_around_zero_are_refused_for_relu_alone(small: xr.Dataset) -> None:
    fixed = small["information"].sel(estimator="fixed")
    assert fixed.sel(activation="tanh").notnull().all()
    outgrown = float(small["outside"].sel(activation="relu").max()) > 0.01
    assert outgrown
    assert fixed.sel(activation="relu").isnull().all()


def test_a_network_that_ends_silent_has_died_and_falls_are_from_the_largest() -> None:
    bits = np.array([[[2.0, 5.0, 4.0], [2.0, 1.0, 0.0]]])  # activation, network, epoch
    layers = np.stack([bits, bits], -1)
    result = xr.Dataset(
        {"information": (("estimator", "activation", "network", "epoch", "layer"), layers[None])},
        {"estimator": ["float32"], "activation": ["relu"], "layer": [1, 2], "epoch": [0, 1, 2]},
    )
    assert dead(result).values.tolist() == [[False, True]]
    assert falls(result).isel(layer=0).values.ravel().tolist() == [1.0, 2.0]


@pytest.mark.filterwarnings("error")
def test_a_training_that_diverges_is_measured_to_its_end() -> None:
    wild = replace(SMALL, learning_rate=1e30, activations=("relu",))
    result = information_plane.measure(wild, load_dataset("digits", limit=100))
    assert result.sizes["epoch"] == 4
    assert result["accuracy"].notnull().all()


# --- depth


def test_information_dies_on_the_ordered_side_only(small: xr.Dataset) -> None:
    found = depths(small)
    assert (found["bits"].sel(sigma_w2=0.3) <= 12).all()
    assert (found["bits"].sel(sigma_w2=3.0) == 13).all()
    assert float(small["bits"].sel(sigma_w2=3.0).min()) > 5  # of log2 40
    assert scores(small)["information"].dims == ("sigma_w2", "untrained")


def test_noise_of_every_stage_adds_up_as_in_linear_networks() -> None:
    """Weights multiply the noise of the stages before by their variance; each adds its own."""
    network = mlp((1, 5, 5), depth=4, width=500, activation="linear")
    initialise(network, sigma_w2=1.5, sigma_b2=0.0, seed=0)
    images = 0.005 * torch.rand(60, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    found = added_information(network, images, 1e-3, seed=0)
    nobody = torch.zeros(60, dtype=torch.int64)
    for level, values in enumerate(features(network, images)):
        variance = 1e-3 * sum(1.5**power for power in range(level + 1))
        assert found[level] == pytest.approx(float(noisy(values, nobody, variance)[1]), rel=0.03)
        assert 0.1 < found[level] < 0.9 * math.log2(60)  # where bits depend on the noise
    assert found == added_information(network, images, 1e-3, seed=0)


@pytest.mark.slow
def test_a_result_from_before_noise_of_every_stage_was_measured_is_drawn_without_it(
    small: xr.Dataset,
) -> None:
    older = small.drop_vars("added")
    assert "added" in depths(small)
    assert "added" not in depths(older)
    information_plane.figure(older)
    said = information_plane.takeaway(small)
    assert "every stage" in said
    assert "every stage" not in information_plane.takeaway(older)


@pytest.mark.slow
def test_one_bit_is_lost_where_mean_field_says_and_about_where_no_regression_reads_the_image() -> (
    None
):
    given = {"hidden": (3,), "networks": 1, "epochs": 1, "looks": 2, "pairs": 32}
    wide = Settings(**given, variances=(0.8,), untrained_depth=40, untrained_width=400,
                    train_images=600, test_images=200)  # fmt: skip
    found = depths(information_plane.measure(wide, load_dataset("digits", limit=1000))).squeeze()
    bits = float(found["bits"])
    assert bits < 40
    assert float(found["mean_field"]) == pytest.approx(bits, rel=0.15)
    assert float(found["read"]) == pytest.approx(bits, rel=0.2)
    assert float(found["r_squared"]) < float(found["added"]) < bits

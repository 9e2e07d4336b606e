"""Predictors: each against a formula of its own on a tiny network, and what all have in common."""

import math
import pickle
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev

from paperlib import Cascade, correlation_depth, initialise, load_dataset, meanfield, mlp
from paperlib.instruments.prediction import baselines, predictors
from paperlib.instruments.prediction.points import PredictorPoint
from paperlib.instruments.prediction.predictors import PREDICTORS, Prediction
from paperlib.networks import Network, cnn

SHAPE = (1, 3, 2)
CLASSES = 3
LOWEST = torch.finfo(torch.float64).min
ADAM = [name for name in PREDICTORS if name.endswith("_adam")]

every_predictor = pytest.mark.parametrize("name", list(PREDICTORS))


def network(depth: int = 3, *, sigma_w2: float = 1.7, **options: object) -> Network:
    made = mlp(SHAPE, depth=depth, **{"width": 5, "classes": CLASSES, **options})
    initialise(made, sigma_w2=sigma_w2, sigma_b2=0.05, seed=0)
    return made


def images(count: int = 12, seed: int = 0) -> Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


def labels(count: int = 12) -> Tensor:
    return torch.arange(count) % CLASSES


def predict(name: str, net: Network, count: int = 12, seed: int = 0, **options: object) -> Tensor:
    options = {"steps": 5, **options} if name in ADAM else options
    return PREDICTORS[name](net, images(count), labels(count), seed=seed, **options).scores


def linear_head(net: Network, level: int, seed: int = 0) -> Tensor:
    """The weights of the linear head at a level, as the predictors draw them."""
    task = baselines.make_task(net, images(), labels(), seed)
    return task.linear_head(list(task.features())[level - 1]).detach()


def cut(net: Network, level: int) -> nn.Sequential:
    """The first stages of a network and the linear head, as a network that one could train."""
    weight = linear_head(net, level)
    last = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype)
    last.weight.data = weight
    return nn.Sequential(*net.stages[:level], last)


def loss(net: nn.Module, pictures: Tensor) -> float:
    """Mean cross-entropy, spelt out."""
    with torch.no_grad():
        logits = net(pictures).numpy()
    chosen = logits[np.arange(len(logits)), labels(len(logits)).numpy()]
    return float(np.mean(np.log(np.exp(logits).sum(1)) - chosen))


def slopes(net: nn.Module, weight: Tensor, pictures: Tensor) -> np.ndarray:
    """∂L/∂w of every weight of a tensor, by central differences, one at a time."""
    step, flat, found = 1e-5, weight.data.view(-1), []
    for i in range(flat.numel()):
        before = float(flat[i])
        flat[i] = before + step
        above = loss(net, pictures)
        flat[i] = before - step
        below = loss(net, pictures)
        flat[i] = before
        found.append((above - below) / (2 * step))
    return np.array(found)


def weights(net: nn.Module) -> list[Tensor]:
    return [p for p in net.parameters() if p.ndim == 2]


# --- each against its formula ---


def test_the_gradient_ratio_is_that_of_finite_differences() -> None:
    net = network().double()
    scores = predict("gradient_ratio", net)
    for level in (1, 2, 3):
        short, pictures = cut(net, level), images().double()
        first = np.linalg.norm(slopes(short, weights(short)[0], pictures))
        last = np.linalg.norm(slopes(short, weights(short)[level - 1], pictures))
        assert scores[level - 1] == pytest.approx(-abs(math.log(first / last)), abs=1e-6)


def test_snip_sums_the_sensitivity_of_every_connection() -> None:
    net = network().double()
    scores = predict("snip", net)
    for level in (1, 2, 3):
        short = cut(net, level)
        total = 0.0
        for weight in weights(short):
            found = slopes(short, weight, images().double())
            for value, slope in zip(weight.detach().flatten().tolist(), found, strict=True):
                total += abs(value * slope)
        assert scores[level - 1] == pytest.approx(total, rel=1e-6)


def test_synflow_is_the_sum_of_theta_times_its_gradient() -> None:
    net = network(activation="linear")
    scores = predict("synflow", net)
    for level in (1, 2, 3):
        factors = [w.detach().double().abs().requires_grad_() for w in weights(cut(net, level))]
        flow = torch.ones(6, dtype=torch.float64)
        for factor in factors:
            flow = factor @ flow
        flow.sum().backward()
        total = sum(float((factor.detach() * factor.grad).sum()) for factor in factors)
        assert scores[level - 1] == pytest.approx(math.log(total), rel=1e-9)


def test_synflow_of_equal_weights_is_their_power_however_deep() -> None:
    net = network(400)
    for stage in net.stages:
        nn.init.constant_(stage.linear.weight, -3.0)
    scores = predict("synflow", net)
    # 6 pixels of 1 give 3·6 in every unit, and every further layer of 5 units 3·5 times as much
    head_sum = float(linear_head(net, 400).double().abs().sum())
    expected = math.log(18) + 399 * math.log(15) + math.log(401 * head_sum)
    assert float(scores[-1]) == pytest.approx(expected, rel=1e-12)


def test_synflow_of_a_network_that_nothing_passes_is_the_lowest_score() -> None:
    net = network()
    nn.init.zeros_(net.stages[1].linear.weight)
    alive, *dead = predict("synflow", net).tolist()
    assert alive > LOWEST
    assert dead == [LOWEST] * 2


@pytest.mark.parametrize("activation", ["tanh", "relu", "gelu"])
def test_naswot_is_the_determinant_of_agreements_counted_one_by_one(activation: str) -> None:
    net = network(activation=activation)
    scores = predict("naswot", net, count=5)
    codes: list[list[bool]] = [[] for _ in range(5)]
    outputs = images(5).flatten(1).double()
    for level, stage in enumerate(net.stages):
        before = outputs @ stage.linear.weight.double().T + stage.linear.bias.double()
        outputs = stage.activation(before)
        for i in range(5):
            codes[i] += (before[i] > 0).tolist()
        kernel = np.zeros((5, 5))
        for i in range(5):
            for j in range(5):
                hamming = sum(a != b for a, b in zip(codes[i], codes[j], strict=True))
                kernel[i, j] = len(codes[i]) - hamming
        determinant = np.linalg.det(kernel)
        expected = math.log(determinant) if determinant > 0.5 else LOWEST  # it is a whole number
        assert scores[level] == pytest.approx(expected, abs=1e-9)
    assert scores[-1] > LOWEST


@pytest.mark.parametrize("seed", range(8))  # rounding makes the zero eigenvalue +1e-15 or -1e-15
def test_naswot_with_an_image_twice_is_the_lowest_score(seed: int) -> None:
    pictures = images(4, seed=seed)[[0, 1, 2, 3, 0]]
    scores = PREDICTORS["naswot"](network(), pictures, labels(5), seed=0).scores
    assert scores.tolist() == [LOWEST] * 3


def test_naswot_of_more_images_than_units_is_the_lowest_score() -> None:
    scores = predict("naswot", network(8, width=20), count=60)
    assert scores[:2].tolist() == [LOWEST] * 2  # a kernel of rank 21 and 41 at most
    assert scores[-1] > 0  # the determinant is a whole number


@pytest.mark.parametrize("bias", [True, False])
def test_ntk_condition_is_that_of_explicit_jacobians(bias: bool) -> None:
    net = network()
    if not bias:
        for stage in net.stages:
            stage.linear.bias = None
    net = net.double()
    scores = predict("ntk_condition", net, count=6)
    for level in (1, 2, 3):
        short = cut(net, level)

        def total(parameters: dict[str, Tensor], short: nn.Module = short) -> Tensor:
            return functional_call(short, parameters, images(6).double()).sum(1)

        jacobians = jacrev(total)({k: p.detach() for k, p in short.named_parameters()})
        jacobian = torch.cat([j.flatten(1) for j in jacobians.values()], dim=1).numpy()
        singular = np.linalg.svd(jacobian, compute_uv=False)  # κ of J Jᵀ is their ratio, squared
        expected = -2 * math.log(singular[0] / singular[-1])
        assert scores[level - 1] == pytest.approx(expected, rel=1e-8)


def test_ntk_condition_of_equal_images_is_finite_and_at_rounding() -> None:
    pictures = images(1).expand(4, *SHAPE)
    scores = PREDICTORS["ntk_condition"](network(), pictures, labels(4), seed=0).scores
    expected = math.log(4 * np.finfo(np.float64).eps)
    torch.testing.assert_close(scores, torch.full((3,), expected, dtype=torch.float64))


@pytest.mark.parametrize("activation", ["tanh", "erf", "relu", "gelu", "linear"])
def test_correlation_depth_scores_one_minus_depth_over_six_xi(activation: str) -> None:
    net = network(activation=activation)
    given = {"sigma_w2": 0.8, "sigma_b2": 0.1}
    xi = correlation_depth(0.8, 0.1, activation=activation)
    expected = torch.tensor([1 - depth / (6 * xi) for depth in (1, 2, 3)], dtype=torch.float64)
    torch.testing.assert_close(predict("correlation_depth", net, **given), expected)


def test_correlation_depth_estimates_the_variances_that_are_not_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = mlp(SHAPE, depth=3, width=400, classes=CLASSES)
    initialise(net, sigma_w2=1.3, sigma_b2=0.2, seed=0)
    asked = []
    monkeypatch.setattr(
        meanfield, "correlation_depth", lambda w, b, **_: asked.append((w, b)) or 1.0
    )
    predict("correlation_depth", net)
    assert asked[0][0] == pytest.approx(1.3, rel=0.05)  # of 2,400 and twice 160,000 weights
    assert asked[0][1] == pytest.approx(0.2, rel=0.2)  # of 1,200 biases
    predict("correlation_depth", net, sigma_w2=9.0)
    assert asked[1] == (9.0, asked[0][1])


def test_a_critical_network_never_ends_by_its_correlation_depth() -> None:
    scores = predict("correlation_depth", network(), sigma_w2=1.0, sigma_b2=0.0)
    assert scores.tolist() == [1.0] * 3


@pytest.mark.slow
def test_the_random_score_depends_on_the_seed_and_the_weights_and_is_uniform() -> None:
    net, other = network(600, width=1), network(600, width=1, sigma_w2=1.8)
    scores = predict("random", net)
    assert scipy.stats.kstest(scores.numpy(), "uniform").pvalue > 0.001
    for unlike in (predict("random", net, seed=1), predict("random", other)):
        assert abs(float(torch.corrcoef(torch.stack([scores, unlike]))[0, 1])) < 0.2


# --- reconstructions ---

Spied = list[tuple[Tensor, Tensor, Tensor, dict[str, object]]]


@pytest.fixture
def spied(monkeypatch: pytest.MonkeyPatch) -> Spied:
    """What every cascade was fitted to, what it was shown and returned, and the fit's options."""
    seen: Spied = []

    class Spy(Cascade):
        def fit(self, pictures: Tensor, **options: object) -> Cascade:
            self.train, self.options = pictures, options
            return super().fit(pictures, **options)

        def reconstruct(self, pictures: Tensor, **options: object) -> Tensor:
            result = super().reconstruct(pictures, **options)
            seen.append((self.train, pictures, result, self.options))
            return result

    monkeypatch.setattr(predictors, "Cascade", Spy)
    return seen


def r_squared(train: Tensor, test: Tensor, back: Tensor) -> float:
    x, y, mean = (t.double().numpy() for t in (test, back, train.double().mean(0)))
    return float(1 - ((x - y) ** 2).sum() / ((x - mean) ** 2).sum())


def minus_relative_entropy(_: Tensor, test: Tensor, back: Tensor) -> float:
    def lifted(images: Tensor) -> np.ndarray:
        rows = images.double().flatten(1).numpy()
        return rows - rows.min(1, keepdims=True) + 1e-12

    return -float(np.mean(scipy.stats.entropy(lifted(test), lifted(back), axis=1)))


def differential_entropy(_: Tensor, __: Tensor, back: Tensor) -> float:
    rows = back.double().flatten(1).numpy()
    if (rows.sum(1) <= 0).any():  # an image that is no distribution: not defined
        return LOWEST
    deviation = (rows / rows.sum(1, keepdims=True)).std(0, ddof=1).clip(1e-9)
    return float(np.mean(scipy.stats.norm(scale=deviation).entropy()))


def gram_entropy(_: Tensor, __: Tensor, back: Tensor) -> float:
    values = np.linalg.eigvalsh(np.corrcoef(back.double().flatten(1).numpy()) / len(back))
    return float(scipy.stats.entropy(values.clip(1e-300))) / math.log(len(back))


@pytest.mark.parametrize("solver", ["ridge", "adam"])
@pytest.mark.parametrize(
    ("measure", "formula"),
    [
        ("r_squared", r_squared),
        ("relative_entropy", minus_relative_entropy),
        ("differential_entropy", differential_entropy),
        ("gram_entropy", gram_entropy),
    ],
)
def test_a_reconstruction_scores_its_measure_on_held_out_images(
    measure: str, formula: Callable[..., float], solver: str, spied: Spied
) -> None:
    fit = {"steps": 100} if solver == "adam" else {}
    scores = predict(f"{measure}_{solver}", network(), count=25, **fit)
    ((train, test, pictures, _),) = spied
    assert (len(train), len(test)) == (20, 5)
    used = torch.cat([train, test]).flatten(1).tolist()
    assert sorted(used) == sorted(images(25).flatten(1).tolist())
    for score, back in zip(scores, pictures, strict=True):
        assert score == pytest.approx(formula(train, test, back), rel=1e-6, abs=1e-8)


def test_a_lossless_network_scores_r_squared_one_and_a_dead_one_none() -> None:
    net = network(2, width=6, activation="linear")
    kept = predict("r_squared_ridge", net, count=40, resolution=1e-10)
    torch.testing.assert_close(kept, torch.ones(2, dtype=torch.float64), rtol=0, atol=1e-4)
    for stage in net.stages:
        nn.init.zeros_(stage.linear.weight)
    assert predict("r_squared_ridge", net, count=40).abs().max() < 1e-9
    assert predict("collapse_depth_ridge", net, count=40).tolist() == [0.0, -1.0]


def test_the_collapse_depth_is_where_its_score_is_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    curve = torch.tensor([0.9, 0.5, 0.019, 0.0])
    monkeypatch.setattr(predictors.measures, "r_squared", lambda *_, **__: curve)
    scores = predict("collapse_depth_ridge", network(4))
    torch.testing.assert_close(scores, 1 - torch.tensor([1, 2, 3, 4]).double() / 3)
    curve[:] = 0.9  # never collapses
    assert (predict("collapse_depth_ridge", network(4)) > 0).all()


def test_the_cutoff_is_the_last_depth_with_a_score_above_zero(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    curves = torch.tensor([[3.0, 2.0, 1.009, 1.0]]).T
    monkeypatch.setattr(predictors.measures, "relative_entropy", lambda *_: curves)
    scores = predict("cutoff_ridge", network(4))
    assert (scores > 0).tolist() == [True, True, True, False]
    scores = predict("cutoff_ridge", network(4), rtol=0.01)
    assert (scores > 0).tolist() == [True, True, False, False]


@pytest.mark.parametrize(
    ("architecture", "rtol"), [("mlp", 0.005), ("cnn", 0.01), ("resnet", 0.01)]
)
def test_a_points_cutoff_has_the_tolerance_published_for_its_architecture(
    architecture: str, rtol: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []
    monkeypatch.setattr(predictors.measures, "cutoff", lambda _, *, rtol: asked.append(rtol) or 1)
    small = {"width": 4, "channels": 2, "depth": 1, "train_images": 10}
    names = ("cutoff_ridge", "r_squared_ridge", "snip")
    point = PredictorPoint(architecture=architecture, predictors=names, **small)
    point.measure(load_dataset("noise", limit=10))
    assert asked == [rtol]


def test_steps_bound_by_partial_reach_the_fit_by_adam() -> None:
    few, more = (partial(PREDICTORS["r_squared_adam"], steps=steps) for steps in (1, 400))
    results = [p(network(), images(50), labels(50), seed=0).scores for p in (few, more)]
    assert results[1][0] > results[0][0] + 0.3


def test_the_inverses_are_fitted_as_the_name_says_with_the_seed_given(spied: Spied) -> None:
    for name in ("r_squared_ridge", "r_squared_adam"):
        PREDICTORS[name](network(), images(), labels(), seed=4)
    ridge, adam = (options for *_, options in spied)
    assert ridge == {"solver": "ridge", "seed": 4}
    assert adam == {"solver": "adam", "seed": 4, "steps": predictors.ADAM_STEPS}


def test_a_reconstruction_of_three_images_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 4 images, got 3"):
        predict("r_squared_ridge", network(), count=3)


# --- what all have in common ---


@every_predictor
def test_a_prediction_is_one_finite_float64_score_per_depth_and_its_cost(name: str) -> None:
    prediction = PREDICTORS[name](network(), images(), labels(), seed=0)
    assert isinstance(prediction, Prediction)
    assert prediction.scores.shape == (3,)
    assert prediction.scores.dtype == torch.float64
    assert not prediction.scores.requires_grad
    assert prediction.scores.isfinite().all()
    assert 0 < prediction.seconds < 60


@every_predictor
def test_the_same_seed_gives_the_same_scores_whatever_the_global_generator(name: str) -> None:
    torch.manual_seed(1)
    first = predict(name, network(), seed=3)
    torch.manual_seed(2)
    torch.testing.assert_close(predict(name, network(), seed=3), first, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["r_squared_ridge", "gradient_ratio", "snip", "synflow"])
def test_another_seed_gives_other_scores(name: str) -> None:
    assert not torch.equal(predict(name, network(), seed=0), predict(name, network(), seed=1))


# these read the network below their depth too: by definition, or through its weights
@pytest.mark.parametrize(
    "name",
    [n for n in PREDICTORS if not n.startswith(("cutoff", "collapse", "correlation", "random"))],
)
def test_a_score_is_that_of_the_network_cut_off_there(name: str) -> None:
    net = network(4)
    scores = predict(name, net)
    for depth in (1, 2, 3):
        short = Network(net.stages[:depth], nn.Linear(5, CLASSES), image_shape=SHAPE)
        score = predict(name, short)[-1]
        torch.testing.assert_close(score, scores[depth - 1], rtol=1e-5, atol=1e-6)


@every_predictor
def test_stages_of_the_stem_have_no_score(name: str) -> None:
    net = network(4)
    with_stem = Network(net.stages, net.head, image_shape=SHAPE, stem=1)
    torch.testing.assert_close(predict(name, with_stem), predict(name, net)[1:])


def snapshot(net: Network) -> dict[str, object]:
    """All that a call could change."""
    return {
        "weights": [p.detach().clone() for p in net.parameters()],
        "buffers": [b.clone() for b in net.buffers()],
        "identity": [id(p) for p in net.parameters()],
        "gradients": [None if p.grad is None else p.grad.clone() for p in net.parameters()],
        "trainable": [p.requires_grad for p in net.parameters()],
        "modes": [m.training for m in net.modules()],
        "hooks": [len(m._forward_hooks) for m in net.modules()],
        "generator": torch.get_rng_state(),
        "grad mode": torch.is_grad_enabled(),
        "numpy": np.random.get_state()[1].tolist(),  # noqa: NPY002
    }


def marked(net: Network) -> Network:
    """A network with something of everything that must stay: gradients, buffers, mixed modes."""
    net.register_buffer("count", torch.ones(2))
    net.stages[0].linear.weight.grad = torch.full_like(net.stages[0].linear.weight, 2.0)
    net.stages[1].eval()
    net.stages[2].linear.bias.requires_grad_(False)
    return net


def equal(before: dict[str, object], after: dict[str, object]) -> bool:
    same = partial(torch.testing.assert_close, rtol=0, atol=0)
    for name, value in before.items():
        if name in ("weights", "buffers", "generator"):
            same(after[name], value)
        elif name == "gradients":
            for a, b in zip(after[name], value, strict=True):
                assert (a is None) == (b is None)
                if a is not None:
                    same(a, b)
        else:
            assert after[name] == value, name
    return True


@every_predictor
def test_the_network_and_the_global_generators_are_left_as_they_were(name: str) -> None:
    net, pictures, classes = marked(network()), images(), labels()
    before = snapshot(net)
    PREDICTORS[name](net, pictures, classes, seed=0)
    assert equal(before, snapshot(net))
    assert torch.equal(pictures, images())
    assert torch.equal(classes, labels())


class Breaks(nn.Module):
    """Fails the second time it is called: after the look at the logits, inside the prediction."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == 2:
            raise RuntimeError("broken")
        return x


@pytest.mark.parametrize(
    "name", ["r_squared_ridge", "cutoff_adam", "naswot", "gradient_ratio", "snip"]
)
def test_the_network_is_left_as_it_was_after_an_exception_too(name: str) -> None:
    net = marked(network())
    net.stages[2].append(Breaks())
    before = snapshot(net)
    with pytest.raises((RuntimeError, ValueError), match="broken"):
        predict(name, net)
    assert equal(before, snapshot(net))


@every_predictor
def test_frozen_networks_and_callers_without_gradients_get_the_same_scores(name: str) -> None:
    expected = predict(name, network())
    with torch.no_grad():
        scores = predict(name, network().requires_grad_(False).eval())
    torch.testing.assert_close(scores, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["r_squared_ridge", "naswot", "snip", "ntk_condition"])
def test_dropout_does_not_act_on_a_prediction(name: str) -> None:
    net = network()
    expected = predict(name, net)
    net.stages[0].append(nn.Dropout(0.5))
    torch.testing.assert_close(predict(name, net.train()), expected, rtol=0, atol=0)


@every_predictor
def test_predictors_can_be_sent_to_another_process(name: str) -> None:
    copied = pickle.loads(pickle.dumps(PREDICTORS[name]))
    scores = copied(network(), images(), labels(), seed=0).scores
    assert torch.equal(scores, PREDICTORS[name](network(), images(), labels(), seed=0).scores)


@pytest.mark.parametrize("name", ["gradient_ratio", "snip", "ntk_condition"])
def test_a_network_that_overflows_has_the_lowest_score_where_it_does(name: str) -> None:
    net = network(3, activation="linear", sigma_w2=1e30)
    assert predict(name, net)[-1] == LOWEST


def test_a_reconstruction_refuses_a_network_that_overflows() -> None:
    with pytest.raises(ValueError, match="overflow"):
        predict("r_squared_ridge", network(3, activation="linear", sigma_w2=1e30))


@pytest.mark.parametrize("name", [n for n in PREDICTORS if n not in ADAM and "cutoff" not in n])
def test_one_class_is_enough_to_predict_from(name: str) -> None:
    alone = torch.zeros(5, dtype=torch.int64)
    scores = PREDICTORS[name](network(), images(5), alone, seed=0).scores
    assert (scores > LOWEST).any()


@pytest.mark.parametrize("shape", ["wide", "shrinking"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_shapes_and_precisions_agree_with_each_other(shape: str, dtype: torch.dtype) -> None:
    net = network(shape=shape, width=None).to(dtype)
    scores = predict("snip", net)
    torch.testing.assert_close(scores, predict("snip", net.double()), rtol=1e-4, atol=0)


def test_the_linear_head_is_scaled_by_its_features_and_is_not_the_networks_first_layer() -> None:
    net = network(1, width=4000)
    drawn = linear_head(net, 1)
    assert drawn.shape == (CLASSES, 4000)
    assert float(drawn.var()) == pytest.approx(1 / 4000, rel=0.05)
    first = net.stages[0].linear.weight.detach().flatten()[: drawn.numel()]
    assert abs(float(torch.corrcoef(torch.stack([drawn.flatten(), first]))[0, 1])) < 0.05
    assert not torch.equal(drawn, linear_head(net, 1, seed=1))


@pytest.mark.parametrize("name", ["gradient_ratio", "naswot", "snip", "ntk_condition"])
def test_a_baseline_reads_no_more_images_than_its_batch(name: str) -> None:
    net, seen = network(), []
    net.stages[0].register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    predict(name, net, count=300, batch_size=7)
    assert seen == [1, 7]  # the first only counts the logits
    with pytest.raises(ValueError, match="batch_size must be >= 2, got 1"):
        predict(name, net, batch_size=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["r_squared_ridge", "correlation_depth", "gradient_ratio", "ntk_condition"]
)
def test_a_deep_critical_network_is_preferred_to_an_ordered_one(name: str) -> None:
    critical, ordered = (network(40, sigma_w2=w, width=60) for w in (1.7, 0.6))
    assert predict(name, critical, count=80)[-1] > predict(name, ordered, count=80)[-1]
    shallow, *_, deep = predict(name, ordered, count=80)
    assert deep < shallow


# --- refusals ---


def with_nan() -> Tensor:
    pictures = images()
    pictures[3, 0, 1, 1] = math.nan
    return pictures


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"labels": labels() + 1}, r"labels must lie in 0 … 2, got 1 … 3"),
        ({"labels": labels() - 1}, r"labels must lie in 0 … 2, got -1 … 1"),
        ({"labels": labels(11)}, r"12 whole numbers, one per image; got \(11,\)"),
        ({"labels": labels().double()}, r"whole numbers.*float64"),
        ({"images": images(1), "labels": labels(1)}, r"images must be \(n >= 2, 1, 3, 2\)"),
        ({"images": images().flatten(1)}, r"images must be .* got \(12, 6\)"),
        ({"images": with_nan()}, r"without NaN or inf"),
        ({"images": images().to(torch.uint8)}, r"floating point.*uint8"),
        ({"seed": -1}, r"seed must be >= 0, got -1"),
        ({"seed": 0.5}, r"seed must be a whole number, got 0.5"),
    ],
)
@pytest.mark.parametrize("name", ["r_squared_adam", "correlation_depth", "snip", "random"])
def test_wrong_arguments_are_refused(name: str, changed: dict[str, object], message: str) -> None:
    given = {"images": images(), "labels": labels(), "seed": 0, **changed}
    with pytest.raises(ValueError, match=message):
        PREDICTORS[name](network(), **given)


def test_a_seed_out_of_an_array_is_a_seed() -> None:
    assert torch.equal(
        predict("snip", network(), seed=np.int64(3)), predict("snip", network(), seed=3)
    )


def test_a_stage_that_is_not_linear_is_refused_by_the_formulas_that_need_one() -> None:
    stages = nn.Sequential(nn.Conv2d(1, 1, 2), nn.Flatten())
    net = Network(stages, nn.Linear(2, CLASSES), image_shape=SHAPE)
    for name in ("synflow", "ntk_condition"):
        with pytest.raises(ValueError, match="one Linear layer per stage; stage 1 holds Conv2d"):
            predict(name, net)
    with pytest.raises(ValueError, match="one Linear or Conv2d layer per stage; stage 2 holds no"):
        predict("correlation_depth", net)


def test_of_convolutions_the_correlation_depth_is_that_of_their_variances() -> None:
    net = cnn((1, 8, 8), depth=4, channels=64, classes=CLASSES)
    initialise(net, sigma_w2=1.5, sigma_b2=0.0, seed=0)
    images = torch.rand(4, 1, 8, 8)
    found = PREDICTORS["correlation_depth"](net, images, torch.arange(4) % CLASSES, seed=0)
    length = meanfield.correlation_depth(1.5, 0.0)
    expected = [1 - depth / (6 * length) for depth in range(1, 5)]
    np.testing.assert_allclose(np.diff(found.scores), np.diff(expected), rtol=0.1)


def test_an_activation_without_mean_field_is_refused() -> None:
    net = network()
    for stage in net.stages:
        stage.activation = nn.Sigmoid()
    with pytest.raises(ValueError, match=r"mean field knows one of tanh.*; got Sigmoid"):
        predict("correlation_depth", net)


@pytest.mark.parametrize("breaks", [False, True])
def test_the_tangent_kernel_leaves_nothing_behind_for_the_next_predictor(
    breaks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = baselines.make_task(network(), images(), labels(), 0)
    if breaks:
        monkeypatch.setattr(baselines, "_log_condition", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError) if breaks else nullcontext():
        PREDICTORS["ntk_condition"].judge(task)
    assert not any(layer._forward_hooks for layer in task.layers())


def test_predictors_of_one_task_share_a_fit_and_are_each_charged_for_it(spied: Spied) -> None:
    task = baselines.make_task(network(6, width=60), images(40), labels(40), 0)
    names = ("r_squared_ridge", "gram_entropy_ridge", "collapse_depth_ridge", "r_squared_adam")
    few = {"r_squared_adam": {"steps": 5}}
    together = [PREDICTORS[name].judge(task, **few.get(name, {})) for name in names]
    assert len(spied) == 2  # one by ridge, one by Adam
    for name, prediction in zip(names, together, strict=True):
        alone = predict(name, network(6, width=60), count=40)
        torch.testing.assert_close(prediction.scores, alone, rtol=0, atol=0)
    first, *reused, _ = together
    assert all(prediction.seconds > 0.5 * first.seconds for prediction in reused)

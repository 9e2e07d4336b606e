from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from paperlib import Cascade, collapse_depth, initialise, load_dataset, mlp, r_squared
from paperlib.cascade import archive
from paperlib.cascade import cascade as cascades
from paperlib.measures import differential_entropy_published
from paperlib.networks import Network, cnn, resnet, vgg16

SHAPE = (1, 6, 6)


def images(count: int, seed: int = 0) -> torch.Tensor:
    """Smooth random images: a few bright spots, values in [0, 1]."""
    coarse = torch.rand(count, 1, 3, 3, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(coarse, SHAPE[1:], mode="bilinear")


def network(depth: int = 5, **options: object) -> Network:
    made = mlp(SHAPE, depth=depth, **options)
    initialise(made, sigma_w2=1.7, sigma_b2=0.05, seed=0)
    return made


@pytest.fixture(params=["ridge", "adam"])
def cascade(request: pytest.FixtureRequest) -> Cascade:
    return Cascade.for_network(network(), images(1)).fit(images(300), solver=request.param)


def convolutional(build=cnn, depth: int = 3, shape: tuple[int, ...] = (1, 12, 12)) -> Network:
    made = build(shape, depth=depth, channels=6)
    initialise(made, sigma_w2=1.1, sigma_b2=2e-5, seed=0)
    return made


def pooled() -> nn.Sequential:
    """As VGG16 is built: convolutions, a maximum over windows, flattened, fully connected."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 5, 3, padding=1), nn.ReLU(inplace=True)),
        nn.MaxPool2d(2),
        nn.Sequential(nn.Conv2d(5, 6, 3, padding=1), nn.ReLU(inplace=True)),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Sequential(nn.Linear(54, 20), nn.ReLU(inplace=True), nn.Dropout()),
    )


SPATIAL = {
    "cnn": convolutional,
    "published cnn": lambda: convolutional(partial(cnn, padding="published")),
    "resnet": lambda: convolutional(resnet),
    "published resnet": lambda: convolutional(partial(resnet, block="published")),
    "pooled": pooled,
}


@pytest.fixture(
    params=[(name, solver) for name in SPATIAL for solver in ("ridge", "adam")], ids=str
)
def spatial(request: pytest.FixtureRequest) -> Cascade:
    """A cascade of a network with convolutions."""
    name, solver = request.param
    made = SPATIAL[name]()
    return Cascade.for_network(made, pictures(1)).fit(pictures(150), solver=solver)


def pictures(count: int, seed: int = 0, size: int = 12) -> torch.Tensor:
    coarse = torch.rand(count, 1, 3, 3, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(coarse, (size, size), mode="bilinear")


def one_by_one(cascade: Cascade, stages: nn.Sequential, pictures: torch.Tensor, level: int):
    """The definition: down the stages, up the inverses."""
    with torch.no_grad():
        for stage in stages[:level]:
            pictures = stage(pictures)
        for inverse in reversed(cascade._inverses[:level]):
            pictures = inverse(pictures)
    return pictures


def test_reconstructions_have_a_level_axis_and_the_images_shape(cascade: Cascade) -> None:
    assert cascade.depth == 5
    assert cascade.reconstruct(images(7)).shape == (5, 7, *SHAPE)


@pytest.mark.parametrize("count", [2, 200])  # composed or not: few images are cheaper step by step
def test_every_level_is_the_chain_of_inverses(cascade: Cascade, count: int) -> None:
    stages = network().stages
    whole = cascade.reconstruct(images(count, seed=1))
    for level in range(1, 6):
        chained = one_by_one(cascade, stages, images(count, seed=1), level)
        torch.testing.assert_close(whole[level - 1], chained, rtol=0, atol=1e-5)


def test_composed_and_step_by_step_reconstructions_agree() -> None:
    deep = Cascade.for_network(network(60), images(1)).fit(images(300))
    activations = deep._activations(images(50, seed=2), set(range(1, 61)))
    composed, descended = deep._compose(activations), deep._descend(activations)
    for level in range(1, 61):
        torch.testing.assert_close(composed[level], descended[level], rtol=0, atol=1e-5)


@pytest.mark.parametrize("count", [2, 300])  # composed or not
def test_every_level_of_a_convolutional_network_is_the_chain_of_inverses(
    spatial: Cascade, count: int
) -> None:
    whole = spatial.reconstruct(pictures(count, seed=1))
    assert whole.shape == (6, count, 1, 12, 12)
    stages = [stage.eval() for stage in spatial._stages]
    for level in range(1, 7):
        chained = one_by_one(spatial, stages, pictures(count, seed=1), level)
        torch.testing.assert_close(whole[level - 1], chained, rtol=0, atol=1e-4)
    some = spatial.reconstruct(pictures(count, seed=1), levels=[5, 1])
    torch.testing.assert_close(some, whole[[4, 0]], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("name", "solver", "least"), [
    *((name, "ridge", 0.95) for name in SPATIAL), ("cnn", "adam", 0.5)
])  # fmt: skip
def test_a_convolutional_reconstruction_resembles_its_image(
    name: str, solver: str, least: float
) -> None:
    made, test = SPATIAL[name](), pictures(99, seed=1)
    first = list(getattr(made, "stages", made))[:1]
    fitted = Cascade.for_network(first, test[:1]).fit(pictures(300), solver=solver, steps=600)
    assert float(r_squared(test, fitted.reconstruct(test)[0])) > least


@pytest.mark.parametrize("count", [3, 400])  # composed or not
def test_a_small_workspace_changes_no_picture(
    spatial: Cascade, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = spatial.reconstruct(pictures(count))
    monkeypatch.setattr(cascades, "WORKSPACE", 5000)
    torch.testing.assert_close(spatial.reconstruct(pictures(count)), whole, rtol=0, atol=1e-5)


def test_a_saved_convolutional_cascade_comes_back_the_same(
    spatial: Cascade, tmp_path: Path
) -> None:
    spatial.save(tmp_path / "a.safetensors")
    loaded = Cascade.load(tmp_path / "a.safetensors", nn.ModuleList(spatial._stages))
    assert torch.equal(loaded.reconstruct(pictures(5)), spatial.reconstruct(pictures(5)))


def test_channels_of_a_convolutional_level_are_read_out_alone(spatial: Cascade) -> None:
    test, level = pictures(3), 3
    whole = spatial.reconstruct(test, levels=level)[0]
    every = spatial.from_channel(test, level, range(6))
    torch.testing.assert_close(every, whole, rtol=0, atol=1e-5)
    if spatial._affine:  # Adam has seen three batches
        assert not torch.allclose(spatial.from_channel(test, level, 2), whole, atol=1e-3)
    target = torch.zeros(2, *spatial._shapes[-1])
    assert spatial.ideal_input(target).shape == (2, 1, 12, 12)


@pytest.mark.parametrize("build", [cnn, resnet])
def test_a_collapsed_convolutional_cascade_returns_the_mean_image(build) -> None:
    made = convolutional(build, depth=20)
    initialise(made, sigma_w2=0.01, sigma_b2=2e-5, seed=0)
    train, test = pictures(200), pictures(50, seed=1)
    fitted = Cascade.for_network(made, train[:1]).fit(train, resolution=1e-3)
    curve = r_squared(test, fitted.reconstruct(test), mean=train.mean(0))
    assert float(curve[-1]) == pytest.approx(0, abs=1e-3)
    lost = fitted.reconstruct(test)[-1]
    torch.testing.assert_close(lost, train.mean(0).expand_as(lost), rtol=0, atol=1e-3)


@pytest.mark.parametrize("solver", ["ridge", "adam"])
@pytest.mark.parametrize("build", [cnn, resnet])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 2, 3), (3, 5, 1)], ids=str)
def test_tiny_images_and_single_channels_are_inverted(build, shape, solver: str) -> None:
    made = build(shape, depth=2, channels=1)
    initialise(made, sigma_w2=1.1, sigma_b2=2e-5, seed=0)
    train = torch.rand(40, *shape, generator=torch.Generator().manual_seed(0))
    fitted = Cascade.for_network(made, train[:1]).fit(train, solver=solver)
    alone = fitted.reconstruct(train[:1])
    assert alone.shape == (5, 1, *shape)
    assert alone.isfinite().all()


def test_only_bounded_convolutions_have_a_finer_default_resolution() -> None:
    train = pictures(60)
    relu = cnn((1, 12, 12), depth=1, channels=4, activation="relu")
    for made, expected in (
        (convolutional(), 3e-6),
        (mlp((1, 12, 12), depth=2), 1e-3),
        (relu, 1e-3),  # whose λ is relative to the activations
    ):
        fitted = Cascade.for_network(made, train[:1]).fit(train)
        assert fitted._solver["resolution"] == expected


def test_convolutions_in_float64_are_solved_in_float64() -> None:
    train, curves = pictures(200).double(), []
    fitted = Cascade.for_network(convolutional(depth=1).double(), train[:1])
    for resolution in (1e-12, 1e-6):
        back = fitted.fit(train, resolution=resolution).reconstruct(train)
        assert back.dtype == torch.float64
        curves.append(r_squared(train, back))
    assert curves[0][0] > curves[1][0]


def test_chosen_levels_come_in_the_order_asked_for(cascade: Cascade) -> None:
    whole = cascade.reconstruct(images(4))
    some = cascade.reconstruct(images(4), levels=[4, 1, 4])
    torch.testing.assert_close(some, whole[[3, 0, 3]], rtol=0, atol=1e-6)


@pytest.mark.slow
def test_a_shallow_reconstruction_resembles_its_image(cascade: Cascade) -> None:
    fitted = cascade.fit(images(600), solver="adam", steps=2000) if not cascade._affine else cascade
    test = images(100, seed=1)
    assert float(r_squared(test, fitted.reconstruct(test, levels=[1]))[0]) > 0.9


def test_the_closed_form_with_the_published_activation_is_bounded_by_it() -> None:
    bounded = Cascade.for_network(network(), images(1)).fit(images(300), affine=False)
    pictures = bounded.reconstruct(images(100, seed=1))
    assert not bounded._affine
    assert float(pictures.abs().max()) < 1
    assert float(r_squared(images(100, seed=1), pictures)[0]) > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp", *SPATIAL])
def test_products_in_bfloat16_train_nearly_the_same_inverses(name: str) -> None:
    made = network(3) if name == "mlp" else SPATIAL[name]()
    shape = SHAPE if name == "mlp" else (1, 12, 12)
    train = nn.functional.interpolate(images(300), shape[1:], mode="bilinear")
    found = []
    for precision in ("float32", "bfloat16"):
        fitted = Cascade.for_network(made, train[:1])
        fitted.fit(train, solver="adam", steps=100, precision=precision)
        assert all(p.dtype == torch.float32 for one in fitted._inverses for p in one.parameters())
        found.append(torch.tensor(fitted.losses))
    assert not torch.equal(*found)
    torch.testing.assert_close(found[1], found[0], rtol=0.03, atol=1e-4)


def test_weight_decay_is_a_ridge_on_weights_and_offsets() -> None:
    """Of a linear stage the penalised least squares have one solution, which Adam comes to."""
    generator = torch.Generator().manual_seed(0)
    train = torch.rand(40, 1, 2, 2, generator=generator)
    made = mlp((1, 2, 2), depth=1, width=3, activation="linear")
    initialise(made, sigma_w2=1.0, sigma_b2=0.1, seed=0)
    decay = 0.05
    fitted = Cascade.for_network(made, train[:1])
    fitted.fit(train, solver="adam", steps=4000, batch_size=40, weight_decay=decay)
    inputs = train.flatten(1)
    outputs = torch.cat([made.stages[-1](inputs), torch.ones(40, 1)], 1).detach()
    # gradient of the mean square, 2 (XᵀX w − Xᵀy) / (n d), and the decay's, times w
    penalty = decay * inputs.shape[1] / 2 * torch.eye(4)
    solved = torch.linalg.solve(outputs.T @ outputs / 40 + penalty, outputs.T @ inputs / 40)
    expected = (outputs @ solved).reshape(train.shape)
    torch.testing.assert_close(fitted.reconstruct(train)[-1], expected, atol=5e-3, rtol=0)


def test_faint_signals_are_lost_to_weight_decay() -> None:
    made, train = mlp(SHAPE, depth=4), images(300)
    initialise(made, sigma_w2=0.3, sigma_b2=0.0, seed=0)
    losses = [
        Cascade.for_network(made, train[:1])
        .fit(train, solver="adam", steps=60, weight_decay=decay)
        .losses[-1]
        for decay in (0.0, 0.01)
    ]
    assert losses[1] > 1.5 * losses[0]


@pytest.mark.parametrize("solver", ["ridge", "adam"])
def test_the_loss_of_each_inverse_is_that_of_the_first_hundred_images(solver: str) -> None:
    made, train = network(), images(300)
    fitted = Cascade.for_network(made, train[:1]).fit(train, solver=solver, batch_size=300)
    assert len(fitted.losses) == 5
    before = made.stages[:2](train[:100])
    estimate = fitted.from_activation(made.stages[2](before), 3, to=2)
    if solver == "ridge":  # by Adam a batch holds them in another order
        assert fitted.losses[2] == pytest.approx(float((estimate - before).square().mean()))
    more = Cascade.for_network(made, train[:1]).fit(train, solver=solver, steps=200)
    if solver == "adam":
        assert max(more.losses) < min(fitted.losses)


@pytest.mark.parametrize("solver", ["ridge", "adam"])
def test_a_fit_until_the_image_is_lost_is_the_beginning_of_the_whole_fit(solver: str) -> None:
    made, train = mlp(SHAPE, depth=40), images(300)
    initialise(made, sigma_w2=0.05, sigma_b2=0.05, seed=0)
    options = {"solver": solver, "steps": 20} if solver == "adam" else {"solver": solver}
    whole = Cascade.for_network(made, train[:1]).fit(train, **options)
    part = Cascade.for_network(made, train[:1]).fit(train, until="lost", **options)
    assert 0 < part.depth < 40
    ours, theirs = part.reconstruct(train[:50]), whole.reconstruct(train[:50])
    assert torch.equal(ours, theirs[: part.depth])
    assert part.losses == whole.losses[: part.depth]
    floor = differential_entropy_published(theirs[part.depth - 1])
    # what was skipped had collapsed, too
    beyond = differential_entropy_published(theirs[part.depth :])
    torch.testing.assert_close(beyond, floor.expand_as(beyond), atol=0.02, rtol=0)


def test_a_fit_until_r_squared_is_lost_ends_where_wrong_pictures_come_back() -> None:
    made, train, held_out = mlp(SHAPE, depth=60), images(300), images(50, seed=1)
    initialise(made, sigma_w2=6.0, sigma_b2=0.05, seed=0)
    whole = Cascade.for_network(made, train[:1]).fit(train)
    lost = Cascade.for_network(made, train[:1]).fit(train, until="lost")
    part = Cascade.for_network(made, train[:1])
    part.fit(train, until="r_squared", held_out=held_out)
    assert lost.depth == 60, "the pictures differ to the end"
    ours, theirs = part.reconstruct(held_out), whole.reconstruct(held_out)
    assert torch.equal(ours, theirs[: part.depth])
    kept = r_squared(held_out, theirs, mean=train.mean(0))
    assert collapse_depth(kept) <= part.depth - 10 < 50
    assert (kept[part.depth - 11 :] < 0.02).all()
    assert kept[0] > 0.5


def test_only_a_fit_until_r_squared_is_lost_takes_images_that_are_held_out() -> None:
    made, train = network(), images(20)
    for options in ({"until": "r_squared"}, {"held_out": train}):
        with pytest.raises(ValueError, match="held_out"):
            Cascade.for_network(made, train[:1]).fit(train, **options)
    cascade = Cascade.for_network(made, train[:1])
    with pytest.raises(ValueError, match="shape"):
        cascade.fit(train, until="r_squared", held_out=train[:, :, 1:])


def test_a_fit_until_the_image_is_lost_goes_to_the_end_where_it_is_not() -> None:
    assert Cascade.for_network(network(12), images(1)).fit(images(300), until="lost").depth == 12


def test_a_fit_is_repeated_number_for_number(cascade: Cascade) -> None:
    solver = cascade._solver["solver"]
    before = cascade.reconstruct(images(3))
    again = Cascade.for_network(network(), images(1)).fit(images(300), solver=solver)
    assert torch.equal(again.reconstruct(images(3)), before)


def test_another_seed_gives_another_adam_fit() -> None:
    first, second = (
        Cascade.for_network(network(), images(1)).fit(images(300), solver="adam", seed=seed)
        for seed in (0, 1)
    )
    assert not torch.equal(first.reconstruct(images(3)), second.reconstruct(images(3)))


@pytest.mark.parametrize("solver", ["ridge", "adam"])
def test_neither_images_nor_network_nor_global_randomness_are_changed(solver: str) -> None:
    pictures, net = images(100), network()
    copies = pictures.clone(), {k: v.clone() for k, v in net.state_dict().items()}
    state = torch.get_rng_state()
    fitted = Cascade.for_network(net, pictures[:1]).fit(pictures, solver=solver)
    fitted.reconstruct(pictures)
    fitted.from_channel(pictures, 2, 3)
    assert torch.equal(pictures, copies[0])
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, copies[1][k]) for k, v in net.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in net.parameters())


def test_an_activation_set_by_hand_goes_through_the_same_inverses(cascade: Cascade) -> None:
    stages = network().stages
    codes = stages[:3](images(4)).detach()
    torch.testing.assert_close(
        cascade.from_activation(codes, 3), cascade.reconstruct(images(4), levels=[3])[0],
        rtol=0, atol=1e-6,
    )  # fmt: skip
    target = torch.rand(2, 36)
    assert torch.equal(cascade.ideal_input(target), cascade.from_activation(target, 5))


def test_a_cascade_can_stop_on_its_way(cascade: Cascade) -> None:
    codes = network().stages(images(4)).detach()
    halfway = cascade.from_activation(codes, 5, to=2)
    assert halfway.shape == (4, 36)
    torch.testing.assert_close(
        cascade.from_activation(halfway, 2), cascade.from_activation(codes, 5), rtol=0, atol=1e-6
    )
    assert torch.equal(cascade.from_activation(codes, 5, to=5), codes)
    for wrong in (-1, 6, 0.5):
        with pytest.raises(ValueError, match=f"to must be .*, got {wrong}"):
            cascade.from_activation(codes, 5, to=wrong)


def test_channels_of_an_affine_cascade_add_up_to_the_whole() -> None:
    fitted = Cascade.for_network(network(), images(1)).fit(images(300))
    whole = fitted.reconstruct(images(3), levels=[2])[0]
    nothing = fitted.from_activation(torch.zeros(3, 36), 2)
    alone = sum(fitted.from_channel(images(3), 2, channel) - nothing for channel in range(36))
    torch.testing.assert_close(alone + nothing, whole, rtol=0, atol=1e-4)
    several = fitted.from_channel(images(3), 2, range(36))
    torch.testing.assert_close(several, whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("workspace", [2**26, 900])
def test_each_of_several_channels_is_read_out_alone_in_one_pass(
    spatial: Cascade, workspace: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    test, chosen = pictures(3), [4, 0, 4]
    one_by_one = torch.stack([spatial.from_channel(test, 3, channel) for channel in chosen])
    monkeypatch.setattr(cascades, "WORKSPACE", workspace)
    each = spatial.from_channel(test, 3, chosen, each=True)
    assert each.shape == (3, 3, 1, 12, 12)
    torch.testing.assert_close(each, one_by_one, rtol=0, atol=1e-5)
    alone = spatial.from_channel(test, 3, 4, each=True)
    torch.testing.assert_close(alone, one_by_one[:1], rtol=0, atol=1e-5)
    if workspace < 2**26:  # neither do the images have to fit at once
        whole = spatial.reconstruct(test, levels=[3])[0]
        every = spatial.from_channel(test, 3, range(6))
        torch.testing.assert_close(every, whole, rtol=0, atol=1e-5)


def interrupted(stages: int):
    """A progress that breaks the fit off once so many stages are finished."""
    finished = 0

    def tell(count: int) -> None:
        nonlocal finished
        finished += count
        if finished == stages:
            raise KeyboardInterrupt

    return tell


@pytest.mark.parametrize("solver", ["ridge", "adam"])
@pytest.mark.parametrize("name", SPATIAL)
def test_a_fit_goes_on_where_it_broke_off(name: str, solver: str, tmp_path: Path) -> None:
    made, train = SPATIAL[name](), pictures(70)
    whole = Cascade.for_network(made, train[:1]).fit(train, solver=solver)
    options = {"solver": solver, "checkpoint": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        Cascade.for_network(made, train[:1]).fit(train, **options, progress=interrupted(3))
    assert len(list(tmp_path.iterdir())) == 3
    told: list[int] = []
    resumed = Cascade.for_network(made, train[:1]).fit(train, **options, progress=told.append)
    assert told == [3, 1, 1, 1]
    assert torch.equal(resumed.reconstruct(train), whole.reconstruct(train))
    told.clear()
    Cascade.for_network(made, train[:1]).fit(train, **options, progress=told.append)
    assert told == [6]


@pytest.mark.parametrize("change", [
    {"resolution": 1e-2}, {"solver": "adam"}, {"images": 71}, {"network": 6}
], ids=str)  # fmt: skip
def test_what_another_fit_has_written_is_not_taken(change: dict, tmp_path: Path) -> None:
    first = Cascade.for_network(network(), images(1))
    first.fit(images(70), checkpoint=tmp_path)
    told: list[int] = []
    other = network() if "network" not in change else network(6)
    options = {k: v for k, v in change.items() if k in ("resolution", "solver")}
    fitted = Cascade.for_network(other, images(1))
    train = images(change.get("images", 70))
    fitted.fit(train, checkpoint=tmp_path, progress=told.append, **options)
    assert told[0] == 0
    plain = Cascade.for_network(other, images(1)).fit(train, **options)
    assert torch.equal(fitted.reconstruct(train), plain.reconstruct(train))


def test_a_damaged_checkpoint_is_reported_and_fitted_again(tmp_path: Path) -> None:
    first = Cascade.for_network(network(), images(1)).fit(images(70), checkpoint=tmp_path)
    file = tmp_path / "003.safetensors"
    file.write_bytes(file.read_bytes()[:-9])
    told: list[int] = []
    again = Cascade.for_network(network(), images(1))
    with pytest.warns(UserWarning, match=r"003\.safetensors is damaged .*fitted again"):
        again.fit(images(70), checkpoint=tmp_path, progress=told.append)
    assert told == [2, 1, 1, 1]
    assert torch.equal(again.reconstruct(images(5)), first.reconstruct(images(5)))


def vgg(**options: object) -> Network:
    return vgg16("random", layers=11, image_shape=(3, 32, 32), classes=10, **options)


def photographs(count: int, seed: int = 0) -> torch.Tensor:
    coarse = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(coarse, (32, 32), mode="bilinear")


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["ridge", "adam"])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_every_stage_of_a_vgg_is_inverted(solver: str, batch_norm: bool) -> None:
    made, train = vgg(batch_norm=batch_norm), photographs(12)
    fitted = Cascade.for_network(made, train[:1]).fit(train, solver=solver, steps=3)
    back = fitted.reconstruct(train)
    assert back.shape == (17, 12, 3, 32, 32)
    assert back.isfinite().all()
    if solver == "ridge":
        curve = r_squared(train, back)
        assert float(curve[0]) > 0.9
        assert bool((curve[1:] < curve[:-1] + 0.02).all())


@pytest.mark.slow
@torch.no_grad()
def test_rescaling_a_layer_of_a_vgg_changes_no_picture() -> None:
    train, backs = photographs(12), []
    for factor in (1.0, 10.0):
        made = vgg()
        for stage, scale in ((made.stages[2], factor), (made.stages[4], 1 / factor)):
            stage.convolution.weight.mul_(scale)
        fitted = Cascade.for_network(made, train[:1]).fit(train)
        backs.append(fitted.reconstruct(train, levels=[1, 3, 4, 5, 8, 17]))
    torch.testing.assert_close(backs[0], backs[1], rtol=0, atol=1e-3)
    curves = [r_squared(train, back) for back in backs]
    torch.testing.assert_close(curves[0], curves[1], rtol=0, atol=1e-3)


def test_a_saved_cascade_comes_back_the_same(cascade: Cascade, tmp_path: Path) -> None:
    cascade.save(tmp_path / "a.safetensors")
    loaded = Cascade.load(tmp_path / "a.safetensors", network())
    assert torch.equal(loaded.reconstruct(images(5)), cascade.reconstruct(images(5)))
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("about", [{"config": {}, "data": {}}, {"fit": "0"}])
def test_other_archives_are_no_saved_cascades(about: dict[str, object], tmp_path: Path) -> None:
    """As weights of `train_vgg` are, and the stages of a checkpoint."""
    archive.write(tmp_path / "other.safetensors", {"weight": torch.ones(2)}, about)
    with pytest.raises(ValueError, match=r"other\.safetensors is no saved cascade"):
        Cascade.load(tmp_path / "other.safetensors", network())


def test_a_saved_cascade_is_refused_by_another_network(cascade: Cascade, tmp_path: Path) -> None:
    cascade.save(tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="belongs to a network with levels"):
        Cascade.load(tmp_path / "a.safetensors", network(4))


def test_a_saved_cascade_is_refused_by_the_same_network_with_other_weights(
    cascade: Cascade, tmp_path: Path
) -> None:
    cascade.save(tmp_path / "a.safetensors")
    other = network()
    initialise(other, sigma_w2=1.7, sigma_b2=0.05, seed=1)
    with pytest.raises(ValueError, match="belongs to a network with other weights"):
        Cascade.load(tmp_path / "a.safetensors", other)


@pytest.mark.parametrize("damage", [
    lambda b: b[:100],
    lambda b: b"",
    lambda b: b"x" * 999,
    lambda b: b[:-50] + bytes([b[-50] ^ 1]) + b[-49:],
])  # fmt: skip
def test_a_damaged_file_is_refused(cascade: Cascade, tmp_path: Path, damage) -> None:
    file = tmp_path / "a.safetensors"
    cascade.save(file)
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ValueError, match="is damaged"):
        Cascade.load(file, network())


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no saved cascade at .*none\.safetensors"):
        Cascade.load(tmp_path / "none.safetensors", network())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_networks_are_fitted_in_float32(dtype: torch.dtype) -> None:
    half = network().to(dtype)
    pictures = Cascade.for_network(half, images(1)).fit(images(300)).reconstruct(images(50, seed=1))
    assert pictures.dtype == torch.float32
    assert float(r_squared(images(50, seed=1), pictures)[0]) > 0.9


def test_a_double_network_is_fitted_in_float64() -> None:
    double = network().double()
    fitted = Cascade.for_network(double, images(1)).fit(images(300), resolution=1e-12)
    pictures = fitted.reconstruct(images(50, seed=1).double())
    assert pictures.dtype == torch.float64
    exact = r_squared(images(50, seed=1), pictures)
    coarse = Cascade.for_network(network(), images(1)).fit(images(300))
    assert bool(
        (exact > r_squared(images(50, seed=1), coarse.reconstruct(images(50, seed=1)))).all()
    )


@pytest.mark.parametrize("activation", ["tanh", "erf", "relu", "gelu", "linear"])
@pytest.mark.parametrize("solver", ["ridge", "adam"])
def test_every_activation_can_be_fitted(activation: str, solver: str) -> None:
    net = network(3, activation=activation)
    pictures = (
        Cascade.for_network(net, images(1)).fit(images(200), solver=solver).reconstruct(images(9))
    )
    assert pictures.isfinite().all()


def test_any_sequence_of_modules_can_be_inverted() -> None:
    stages = [nn.Linear(8, 6), nn.Sequential(nn.Linear(6, 4), nn.Sigmoid())]
    vectors = torch.rand(100, 8)
    assert Cascade.for_network(stages, vectors).fit(vectors).reconstruct(vectors).shape == (
        2,
        100,
        8,
    )


@pytest.mark.parametrize(("call", "message"), [
    (lambda c: c.fit(images(10), solver="sgd"), "solver must be one of ridge, adam; got 'sgd'"),
    (lambda c: c.fit(images(1)), "at least 2 images, got 1"),
    (lambda c: c.fit(images(9), resolution=0), r"resolution must be > 0, got 0\.0"),
    (lambda c: c.fit(images(9), resolution="1e-3"), "resolution must be .*, got '1e-3'"),
    (lambda c: c.fit(images(9), solver="adam", steps=0), "steps must be >= 1, got 0"),
    (lambda c: c.fit(images(9), solver="adam", steps=2.5), "steps must be .* got 2.5"),
    (lambda c: c.fit(images(9), solver="adam", batch_size=0), "batch_size must be .* got 0"),
    (lambda c: c.fit(images(9).numpy()), "images must be a torch tensor, got ndarray"),
    (lambda c: c.fit(torch.rand(9, 1, 6, 5)), r"shape \(batch, 1, 6, 6\), got \(9, 1, 6, 5\)"),
    (lambda c: c.fit(torch.full((9, *SHAPE), torch.nan)), "images hold NaN"),
    (lambda c: c.fit(torch.zeros(9, *SHAPE, dtype=torch.uint8)), r"floating point .* torch\.uint8"),
    (lambda c: c.reconstruct(images(2), levels=[0]), r"levels are 1 … 5, got \[0\]"),
    (lambda c: c.reconstruct(images(2), levels=[]), "levels are 1 … 5, got none"),
    (lambda c: c.reconstruct(images(2), levels=[2.5]), r"levels are 1 … 5, got \[2.5\]"),
    (lambda c: c.from_channel(images(2), 5, [1.5]), "has the channels 0 … 35, got"),
    (lambda c: c.ideal_input(torch.full((1, 36), torch.nan)), "the target holds NaN"),
    (lambda c: c.from_activation(torch.rand(2, 35), 5), r"shape \(batch, 36\), got \(2, 35\)"),
    (lambda c: c.from_channel(images(2), 6, 0), r"level must be one of 1 … 5, got \[6\]"),
    (lambda c: c.from_channel(images(2), 5, 36), "has the channels 0 … 35, got 36"),
    (lambda c: c.ideal_input(torch.rand(2, 10)), r"shape \(batch, 36\), got \(2, 10\)"),
])  # fmt: skip
def test_a_bad_argument_is_named(call, message: str) -> None:
    fitted = Cascade.for_network(network(), images(1)).fit(images(50))
    with pytest.raises(ValueError, match=message):
        call(fitted)


def test_a_failed_fit_leaves_the_fit_before_it() -> None:
    fitted = Cascade.for_network(network(), images(1)).fit(images(50))
    before = fitted.reconstruct(images(3))
    with pytest.raises(ValueError, match="arithmetic"):
        fitted.fit(images(50), arithmetic="int4")
    assert torch.equal(fitted.reconstruct(images(3)), before)
    overflowing = mlp(SHAPE, depth=4, activation="linear")
    initialise(overflowing, sigma_w2=1e20, sigma_b2=0.0, seed=0)
    unfitted = Cascade.for_network(overflowing, images(1))
    with pytest.raises(ValueError, match="overflow"):
        unfitted.fit(images(50))
    with pytest.raises(ValueError, match="call fit"):
        unfitted.reconstruct(images(3))


def test_stages_run_in_evaluation_mode_and_keep_their_own() -> None:
    stages = nn.Sequential(
        nn.Sequential(nn.Flatten(), nn.Linear(36, 20), nn.Dropout(0.5), nn.Tanh()),
        nn.Sequential(nn.ReLU(inplace=True), nn.Linear(20, 9)),
    ).train()
    pictures = images(60)
    first, second = (
        Cascade.for_network(stages, pictures[:1]).fit(pictures).reconstruct(pictures)
        for _ in range(2)
    )
    assert torch.equal(first, second)
    assert all(module.training for module in stages.modules())


def test_an_in_place_stage_does_not_touch_its_input() -> None:
    stages = [nn.Sequential(nn.ReLU(inplace=True), nn.Linear(8, 6))]
    vectors = torch.randn(60, 8, generator=torch.Generator().manual_seed(0))
    before = vectors.clone()
    Cascade.for_network(stages, vectors).fit(vectors).reconstruct(vectors)
    assert torch.equal(vectors, before)


def test_a_target_may_hold_whole_numbers() -> None:
    fitted = Cascade.for_network(network(), images(1)).fit(images(50))
    whole = torch.eye(36, dtype=torch.int64)[:3]
    assert torch.equal(fitted.ideal_input(whole), fitted.ideal_input(whole.double()))


@pytest.mark.slow
def test_composition_holds_at_the_published_width() -> None:
    wide = mlp((1, 28, 28), depth=40)
    initialise(wide, sigma_w2=1.7, sigma_b2=0.05, seed=0)
    pictures = load_dataset("digits").floats("train")[:1000]
    fitted = Cascade.for_network(wide, pictures[:1]).fit(pictures)
    activations = fitted._activations(pictures[:20], {1, 20, 40})
    composed, descended = fitted._compose(activations), fitted._descend(activations)
    for level in (1, 20, 40):
        torch.testing.assert_close(composed[level], descended[level], rtol=0, atol=1e-5)


def test_an_unfitted_cascade_says_so(tmp_path: Path) -> None:
    unfitted = Cascade.for_network(network(), images(1))
    for call in (
        lambda: unfitted.reconstruct(images(2)),
        lambda: unfitted.from_activation(torch.rand(1, 36), 1),
        lambda: unfitted.save(tmp_path / "a"),
    ):
        with pytest.raises(ValueError, match=r"call fit\(images\) first"):
            call()


def test_stages_that_do_not_fit_together_are_named() -> None:
    with pytest.raises(
        ValueError, match=r"stage 2 \(Linear\) does not take an input of shape \(1, 6\)"
    ):
        Cascade.for_network([nn.Linear(8, 6), nn.Linear(5, 4)], torch.rand(1, 8))
    with pytest.raises(ValueError, match=r"network must be one with stages, .*got Linear"):
        Cascade.for_network(nn.Linear(8, 6), torch.rand(1, 8))
    with pytest.raises(ValueError, match=r"network must be one with stages, .* at least one; got"):
        Cascade.for_network([], torch.rand(1, 8))

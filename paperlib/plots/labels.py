"""What figures say of a result: its network, solver, seeds and data."""

import xarray as xr
from matplotlib.figure import Figure

from paperlib.core.provenance import provenance
from paperlib.networks.kinds import IN_WORDS

DATA = {  # as publications write them; networks see one channel
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "cifar10": "grey CIFAR10",
    "cifar10_grey_jpeg": "grey CIFAR10 (JPEG)",
    "patches": "photographs",
}
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def data_of(name: str) -> str:
    """Return a data set's name as publications write it; others as they are.

    Example:
        >>> from paperlib.plots.labels import data_of
        >>> data_of("fashion_mnist"), data_of("digits")
        ('FashionMNIST', 'digits')
    """
    return DATA.get(name, name)


def written(value: float) -> str:
    """Return a setting as it is written by hand.

    Example:
        >>> from paperlib.plots.labels import written
        >>> written(0.05), written(3e-6), written(1e-5)
        ('0.05', '3·10⁻⁶', '10⁻⁵')
    """
    digits, _, power = f"{value:g}".partition("e")
    if not power:
        return digits
    ten = "10" + str(int(power)).translate(_RAISED)
    return ten if digits == "1" else f"{digits}·{ten}"


def describe(result: xr.Dataset) -> str:
    """Return a result's title in words: data really used, network, variance, solver, seeds.

    Example:
        >>> from paperlib import load_result
        >>> from paperlib.plots import describe
        >>> describe(load_result("mnist_mlp_adam.nc"))
        'MNIST  ·  MLP, width 784, tanh, σ_b² = 0.05  ·  Adam, 938 steps of 64  ·  1 seed'
    """
    title = f"{network_of(result)}  ·  {solver_of(result)}  ·  {seeds_of(result)}"
    if "follows" in result and result["follows"].any():
        measured = int((result["finished"] == 1).sum())
        title += f"  ·  {measured:,} of {result['finished'].size:,} points measured, others follow"
    return title


def known_points(result: xr.Dataset) -> xr.DataArray:
    """Where a result has curves: they were measured, or follow in an adaptive sweep."""
    measured = result["finished"] == 1
    return measured | (result["follows"] == 1) if "follows" in result else measured


def network_of(result: xr.Dataset) -> str:
    """Return a result's data and network in words.

    Example:
        >>> from paperlib import load_result
        >>> from paperlib.plots import network_of
        >>> network_of(load_result("mnist_mlp_adam.nc"))
        'MNIST  ·  MLP, width 784, tanh, σ_b² = 0.05'
    """
    about = provenance(result)
    config = about["config"]
    width = f"width {config['width'] or about['data']['pixels']}"
    size = width if config["shape"] == "wide" else "shrinking"
    if config["architecture"] != "mlp":
        size = f"{config['channels']} channels"
    kind = IN_WORDS[config["architecture"]]
    return (
        f"{data_of(about['data']['name'])}  ·  {kind}, {size}, {config['activation']}, "
        f"σ_b² = {written(config['sigma_b2'])}"
    )


def solver_name(result: xr.Dataset) -> str:
    """Return the solver that fitted a result's cascades: "ridge" or "adam".

    Example:
        >>> from paperlib import load_result
        >>> from paperlib.plots import solver_name
        >>> solver_name(load_result("mnist_mlp_adam.nc"))
        'adam'
    """
    return provenance(result)["config"]["solver"]


def solver_of(result: xr.Dataset) -> str:
    """Return what fitted a result's cascades, in words.

    Example:
        >>> from paperlib import load_result
        >>> from paperlib.plots import solver_of
        >>> solver_of(load_result("mnist_mlp_adam.nc"))
        'Adam, 938 steps of 64'
    """
    about = provenance(result)
    config, images = about["config"], about["data"]["train_images"]
    if config["solver"] == "ridge":
        return f"ridge, λ = {written(config['resolution'])}, {images:,} images"
    steps = config["steps"] or -(-images // config["batch_size"])
    decay = config.get("weight_decay", 0)
    return f"Adam, {steps:,} steps of {config['batch_size']}" + (
        f", weight decay {written(decay)}" if decay else ""
    )


def seeds_of(result: xr.Dataset) -> str:
    """Return how many seeds a result has, in words.

    Example:
        >>> from paperlib import load_result
        >>> from paperlib.plots import seeds_of
        >>> seeds_of(load_result("mnist_mlp_adam.nc"))
        '1 seed'
    """
    count = result.sizes["seed"]
    return f"{count} seed{'s' if count > 1 else ''}"


def sign(figure: Figure, title: str, result: xr.Dataset) -> None:
    """Draw a title, and below it in small print what the result was computed with.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> from paperlib import load_result
        >>> from paperlib.plots import sign
        >>> figure = plt.figure()
        >>> sign(figure, "Closed form and Adam", load_result("mnist_mlp_adam.nc"))
        >>> figure.get_suptitle()
        'Closed form and Adam'
        >>> plt.close(figure)
    """
    about = provenance(result)
    commits = ", ".join(sorted({way["commit"] for way in about["computed"]}))
    versions = ", ".join(sorted({way["versions"]["torch"] for way in about["computed"]}))
    checksum = about["data"]["checksum"][:12]
    day = about["finished_at"][:10]
    imprint = f"commit {commits} · {day} · torch {versions} · data {checksum}"
    figure.suptitle(title, fontsize=9)
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.set(rect=(0, 0.02, 1, 0.98))  # type: ignore[call-arg]
    figure.text(0.995, 0.002, imprint, ha="right", fontsize=4.5, color="0.45")


def describe_training(trained: xr.Dataset) -> str:
    """Return a training's title in words: data really used, network, optimiser, budget, seeds.

    Example:
        >>> from paperlib import load_result
        >>> from paperlib.plots import describe_training
        >>> describe_training(load_result("trainability_mnist.nc")).split("  ·  ")[2]
        'SGD, rate 0.3/depth, 500 steps of 64'
    """
    config = provenance(trained)["config"]
    if "trained_by" in config:  # several ways
        ways = ", ".join(config["trained_by"]).replace("adam", "Adam").replace("sgd", "SGD")
        ended = ", ended once decided" if config["until"] == "decided" else ""
        return (
            f"{network_of(trained)}  ·  best of {ways}, up to {config['budget']:,} steps of "
            f"{config['batch_size']}{ended}  ·  {seeds_of(trained)}"
        )
    power = config["rate_exponent"]
    rule = "" if not power else "/depth" if power == 1 else f"/depth^{power:g}"
    optimiser = {"sgd": "SGD", "adam": "Adam"}[config["optimiser"]]
    return (
        f"{network_of(trained)}  ·  {optimiser}, rate {config['learning_rate']:g}{rule}, "
        f"{config['steps']:,} steps of {config['batch_size']}  ·  {seeds_of(trained)}"
    )

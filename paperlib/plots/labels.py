"""What figures say of a result: its network, solver, seeds and data."""

import xarray as xr
from matplotlib.figure import Figure

from paperlib.core.provenance import provenance


def describe(result: xr.Dataset) -> str:
    """A result's title in words: data really used, network, variance, solver, seeds."""
    return f"{network_of(result)}  ·  {solver_of(result)}  ·  {seeds_of(result)}"


def network_of(result: xr.Dataset) -> str:
    """A result's data and network in words."""
    about = provenance(result)
    config = about["config"]
    width = f"width {config['width'] or about['data']['pixels']}"
    size = width if config["shape"] == "wide" else "shrinking"
    if config["architecture"] != "mlp":
        size = f"{config['channels']} channels"
    kind = {"mlp": "MLP", "cnn": "CNN", "resnet": "ResNet"}[config["architecture"]]
    return (
        f"{about['data']['name']}  ·  {kind}, {size}, {config['activation']}, "
        f"σ_b² = {config['sigma_b2']:g}"
    )


def solver_name(result: xr.Dataset) -> str:
    """The solver that fitted a result's cascades: "ridge" or "adam"."""
    return provenance(result)["config"]["solver"]


def solver_of(result: xr.Dataset) -> str:
    """What fitted a result's cascades, in words."""
    about = provenance(result)
    config, images = about["config"], about["data"]["train_images"]
    if config["solver"] == "ridge":
        return f"ridge, λ = {config['resolution']:g}, {images:,} images"
    steps = config["steps"] or -(-images // config["batch_size"])
    return f"Adam, {steps:,} steps of {config['batch_size']}"


def seeds_of(result: xr.Dataset) -> str:
    """How many seeds a result has, in words."""
    count = result.sizes["seed"]
    return f"{count} seed{'s' if count > 1 else ''}"


def sign(figure: Figure, title: str, result: xr.Dataset) -> None:
    """Draw a title, and below it in small print what the result was computed with."""
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
    """A result's title in words: data really used, network, optimiser, budget, seeds."""
    config = provenance(trained)["config"]
    power = config["rate_exponent"]
    rule = "" if not power else "/depth" if power == 1 else f"/depth^{power:g}"
    optimiser = {"sgd": "SGD", "adam": "Adam"}[config["optimiser"]]
    return (
        f"{network_of(trained)}  ·  {optimiser}, rate {config['learning_rate']:g}{rule}, "
        f"{config['steps']:,} steps of {config['batch_size']}  ·  {seeds_of(trained)}"
    )

"""What the explorer shows, from shipped results: plain numbers that go into the page as JSON."""

import base64
import io
from collections.abc import Iterable, Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from PIL import Image

from paperlib.core.provenance import provenance
from paperlib.instruments.prediction.plots_zoo import zoo_label
from paperlib.instruments.prediction.zoo_scores import left_out, predictors_of, zoo_table
from paperlib.instruments.trainability.trainings import labels
from paperlib.measures import LOST
from paperlib.networks.kinds import ARCHITECTURES, IN_WORDS
from paperlib.networks.zoo import describe
from paperlib.notebooks.explorer.digits import MAPS
from paperlib.plots import collapse_depths, data_of, describe_training, written
from paperlib.plots.theory import draw_theory
from paperlib.sweep.store import load_result
from paperlib.training.outcome import accuracy_of

TRAINED = {name: f"trainability_{'mnist' if name == 'mlp' else name}.nc" for name in ARCHITECTURES}
# title, unit, and the values at the ends of the colours; None: the smallest, the largest
MEASURES: dict[str, tuple[str, str, float | None, float | None]] = {
    "r_squared": ("R²", "fraction of the images that comes back", 0.0, 1.0),
    "gram_entropy": ("Gram entropy", "fraction of ln n", 0.0, None),
    "differential_entropy": ("Differential entropy", "nats per pixel", None, -5.0),
    "relative_entropy": ("Relative entropy", "nats", 0.0, None),
}
LEAST_ENTROPY = {"mlp": -19.3, "cnn": -10.0, "resnet": -10.0}  # as in the figures


def digits_of(architecture: str) -> xr.Dataset:
    """Return the digits that are shown beside a map, of its first network."""
    return load_result(f"explorer_{architecture}.nc").isel(seed=0)


def map_of(architecture: str) -> dict[str, Any]:
    """Return what is shown of an architecture but for the values of its map."""
    result, digits = load_result(MAPS[architecture]), digits_of(architecture)
    config, data = provenance(result)["config"], provenance(result)["data"]
    seeds = result.sizes["seed"]
    return {
        "name": IN_WORDS[architecture],
        "about": f"{IN_WORDS[architecture]}s of tanh on {data_of(data['name'])}, {_size(config)}, "
        f"σ_b² = {written(config['sigma_b2'])}, closed form on {data['train_images']:,} images, "
        f"means over {seeds} networks",
        "sigma_w2": result["sigma_w2"].values.tolist(),
        "deepest": result.sizes["depth"],
        "shown": digits["sigma_w2"].values.tolist(),
        "depths": digits["shown_depth"].values.tolist(),
        "atlas": atlas(digits),
        "scales": {name: _scale(result, name, architecture) for name in MEASURES},
        "theory": theory(result),
        "wall": wall(result),
        "trained": trained(load_result(TRAINED[architecture])),
    }


def values_of(architecture: str) -> dict[str, np.ndarray]:
    """Return each measure's means over the networks, (depth, variance) in float32."""
    result = load_result(MAPS[architecture])
    means = result[list(MEASURES)].mean("seed").transpose("depth", "sigma_w2")
    return {name: means[name].values.astype(np.float32) for name in MEASURES}


def atlas(digits: xr.Dataset) -> str:
    """Return all digits as one picture in a data URL: a row for each variance, a column for each
    depth, and in a row below the image itself."""
    pictures = digits["example"].isel(channel=0).transpose("sigma_w2", "row", "shown_depth", ...)
    sheet = pictures.values.reshape(len(pictures) * pictures.sizes["row"], -1)
    last = np.zeros((pictures.sizes["row"], sheet.shape[1]), np.uint8)
    original = digits["original"].isel(channel=0).values
    last[:, : original.shape[1]] = original
    file = io.BytesIO()
    Image.fromarray(np.concatenate([sheet, last])).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def theory(result: xr.Dataset) -> list[dict[str, Any]]:
    """Return the curves of mean field as `draw_theory` draws them: label, dash, x and y."""
    figure, axis = plt.subplots()
    draw_theory(axis, result, colour="black")
    curves = [
        {
            "label": str(line.get_label())
            .replace(r"$\xi_c$", "ξ_c")
            .replace(r"$6\,\xi_c$", "6 ξ_c"),
            "dash": {"-": "solid", "--": "dashed", ":": "dotted", "-.": "dotdash"}[
                str(line.get_linestyle())
            ],
            **_curve(*np.asarray(line.get_xydata()).T, deepest=result.sizes["depth"]),
        }
        for line in axis.lines
    ]
    plt.close(figure)
    return curves


def _curve(x: np.ndarray, y: np.ndarray, *, deepest: int) -> dict[str, list[Any]]:
    """A curve in numbers that JSON knows; a vertical line goes through all depths."""
    if len(x) == 2 and x[0] == x[1]:
        y = np.array([0.5, deepest + 0.5])
    return {"x": rounded(x), "y": rounded(np.where(y <= 2 * deepest, y, np.nan))}


def wall(result: xr.Dataset) -> dict[str, list[Any]]:
    """Return where R² falls below LOST for good, along the variances; None: nowhere."""
    depths = collapse_depths(result)
    seen = (depths <= result.sizes["depth"]).all("seed")
    return {"x": rounded(result["sigma_w2"]), "y": rounded(depths.mean("seed").where(seen))}


def trained(result: xr.Dataset) -> dict[str, Any]:
    """Return the accuracy of the networks that were trained, by variance and depth."""
    means = accuracy_of(result).mean("seed")
    flat = means.stack(point=("sigma_w2", "depth")).dropna("point")
    network, way = describe_training(result).split("  ·  ")[1:3]
    return {
        "about": f"{way} images, {network}",
        "x": flat["sigma_w2"].values.tolist(),
        "y": flat["depth"].values.tolist(),
        "accuracy": rounded(flat),
    }


def outputs() -> dict[str, Any]:
    """Return the matrix from ten outputs to a digit, and outputs to begin with."""
    result = load_result("explorer_outputs.nc")
    config = provenance(result)["config"]
    return {
        "about": f"{config['shape']} MLP, {config['depth']} stages, trained on "
        f"{data_of(provenance(result)['data']['name'])} in {config['steps']:,} steps",
        "off": config["off"],
        "classes": [str(name) for name in result["class"].values],
        "shape": [result.sizes["row"], result.sizes["column"]],
        "weight": packed(result["weight"]),
        "bias": packed(result["bias"]),
        "images": [
            {
                "name": str(name),
                "outputs": rounded(result["outputs"].sel(shown=name)),
                "picture": packed(result["picture"].sel(shown=name)),
            }
            for name in result["shown"].values
        ],
    }


def zoo() -> dict[str, Any]:
    """Return what is known of every network of the zoo, and of each score where it stands."""
    trainings, forecasts = load_result("zoo.nc"), load_result("zoo_forecasts.nc")
    table = zoo_table(forecasts, trainings, labels(trainings))
    table["verdict"] = left_out(table, "learns_at_all")
    names = [name for name in predictors_of(forecasts) if name in table]
    ranks = table[names].rank(pct=True)
    accuracy = trainings["accuracy"].sel(number=table.index.values)
    config = provenance(trainings)["config"]
    return {
        "about": f"{config['budget']:,} steps of {config['batch_size']} images of "
        f"{data_of(provenance(trainings)['data']['name'])} at most",
        "trainings": [str(name) for name in trainings["training"].values],
        "moments": [str(name) for name in trainings["moment"].values],
        "predictors": [zoo_label(name) for name in names],
        "number": table.index.tolist(),
        "family": table["family"].tolist(),
        "told": [str(describe(number)) for number in table.index],
        "learns": table["learns_at_all"].astype(int).tolist(),
        "probability": rounded(table["verdict"]),
        "best": rounded(table["best_accuracy"]),
        "accuracy": [rounded(one) for one in accuracy.values.reshape(len(table), -1)],
        "scores": [[significant(value) for value in row] for row in table[names].to_numpy()],
        "ranks": [rounded(row, 2) for row in ranks.to_numpy()],
    }


def rounded(values: Any, digits: int = 3) -> list[float | None]:
    """Return numbers as JSON knows them, None for those that are not finite."""
    flat: Iterable[float] = np.asarray(values, float).ravel()
    return [round(float(value), digits) if np.isfinite(value) else None for value in flat]


def significant(value: float) -> float | None:
    """Return a number with three digits that count."""
    return float(f"{value:.3g}") if np.isfinite(value) and abs(value) < 1e9 else None


def packed(values: xr.DataArray) -> str:
    """Return the numbers as float32 in base64."""
    return base64.b64encode(np.ascontiguousarray(values.values, "<f4").tobytes()).decode()


def _size(config: Mapping[str, Any]) -> str:
    """How wide the networks are, in words."""
    if config["architecture"] != "mlp":
        return f"{config['channels']} channels"
    return f"width {config['width']}" if config["width"] else "as wide as the image"


def _scale(result: xr.Dataset, measure: str, architecture: str) -> list[float]:
    """The values at the ends of a measure's colours."""
    low, high = MEASURES[measure][2:]
    values = result[measure].mean("seed")
    if measure == "differential_entropy":
        low = LEAST_ENTROPY[architecture]
    return [
        float(values.min()) if low is None else low,
        float(values.max()) if high is None else high,
    ]


def words() -> dict[str, Any]:
    """Return the measures' names and units, and below which R² the image counts as lost."""
    return {"lost": LOST, "measures": {name: list(row[:2]) for name, row in MEASURES.items()}}

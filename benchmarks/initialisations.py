"""`suggest()` against other initialisations: accuracy after a short training of ill networks.

    python benchmarks/initialisations.py [--output FILE.csv] [--every 1] [--first 0] [--steps 300]
    python benchmarks/initialisations.py --patients [--output FILE.csv]

Ill are the networks of the shipped zoo that Adam at 1e-3 does not bring to 50% in 2,400 steps, and
those of notebook 20 that have a fault of their own. Each is initialised anew from 300 images of
MNIST, then learns by Adam at 1e-3. Finished networks are kept in the file and not computed again.
Rivals, from their papers:

- known gains: what the literature prescribes for the activation (He, LeCun, Glorot);
- LSUV (Mishkin and Matas 2016, arXiv:1511.06422): orthonormal weights, outputs of variance 1;
- MetaInit (Dauphin and Schoenholz 2019): norms of weights by signs of the gradient quotient's
  slopes, on normal noise and random labels, 100 steps of 32 at 0.1 with momentum 0.9;
- GradInit (Zhu et al. 2021, arXiv:2102.08098): a scale for each parameter by Adam at 0.01, 100
  steps, for Adam: after a step of signs of 1e-3, and ‖g‖₁ at most 100.
"""

import argparse
import csv
import math
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from machine import describe
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from paperlib import load_dataset, load_result, probe
from paperlib.activations.inputs import Inputs
from paperlib.activations.tuning import unit_variance, weights_of
from paperlib.instruments.clinic import PATIENTS, Patient
from paperlib.instruments.prediction.zoo_scores import interval
from paperlib.instruments.probe.remedies import KNOWN, changes_of
from paperlib.instruments.trainability.trainings import DEFAULT, labels, trained
from paperlib.networks.zoo import zoo_network

Initialise = Callable[[nn.Module, Tensor, Tensor], nn.Module]
SHAPE, IMAGES, CLASSES = (1, 28, 28), 300, 10


def as_it_is(model: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
    return model


def suggest(model: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
    return probe(model, x, y).suggest().apply(model)


def known_gains(model: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
    patient = probe(model, x, y)._patient
    found = {change.rule: change for change in changes_of(model, patient)}
    return found[KNOWN].apply(model) if KNOWN in found else model


@torch.no_grad()
def lsuv(model: nn.Module, x: Tensor, y: Tensor, repeats: int = 3) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    weights = weights_of(model)
    for weight in weights.values():
        nn.init.orthogonal_(weight, generator=generator)
    named = dict(model.named_parameters())
    inputs = Inputs.in_order(x, model.eval())
    for _ in range(repeats):
        for name, factor in unit_variance(model, inputs.part(0, len(x)), list(weights)).items():
            named[name].mul_(factor)
            if name.removesuffix("weight") + "bias" in named:
                named[name.removesuffix("weight") + "bias"].zero_()
    return model.train()


def metainit(model: nn.Module, x: Tensor, y: Tensor, steps: int = 100) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    parameters = [p for p in model.eval().parameters() if p.requires_grad]
    weights = [p for p in parameters if p.ndim > 1]
    speed = [0.0] * len(weights)
    for _ in range(steps):
        noise = torch.randn(32, *x.shape[1:], generator=generator)
        said = torch.randint(0, CLASSES, (32,), generator=generator)
        with sdpa_kernel(SDPBackend.MATH):
            loss = nn.functional.cross_entropy(model(noise), said)
            g = _slopes(loss, parameters)
            moving = sum((each**2).sum() for each in g if each.requires_grad) / 2
            products = _slopes(moving, parameters)
            quotient = sum(
                ((a - b) / (a + 1e-5 * torch.where(a >= 0, 1.0, -1.0)) - 1).abs().sum()
                for a, b in zip(g, products, strict=True)
            ) / sum(p.numel() for p in parameters)
            if not math.isfinite(float(quotient)):
                break
            slopes = torch.autograd.grad(quotient, weights, allow_unused=True)
        for number, (weight, slope) in enumerate(zip(weights, slopes, strict=True)):
            norm = float(weight.detach().norm())
            if slope is None or norm == 0 or not math.isfinite(float(slope.sum())):
                continue
            sign = math.copysign(1.0, float((weight.detach() * slope).sum()))
            speed[number] = 0.9 * speed[number] - 0.1 * sign
            with torch.no_grad():
                weight.mul_((norm + speed[number]) / norm)
    return model.train()


def gradinit(model: nn.Module, x: Tensor, y: Tensor, steps: int = 100) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    model.eval()
    values = {name: p.detach() for name, p in model.named_parameters()}
    scales = {name: torch.ones((), requires_grad=True) for name in values}
    optimiser = torch.optim.Adam(scales.values(), lr=1e-2)

    def loss(parameters: dict[str, Tensor], some: Tensor) -> Tensor:
        return nn.functional.cross_entropy(
            torch.func.functional_call(model, parameters, (x[some],)), y[some]
        )

    for _ in range(steps):
        order = torch.randperm(len(x), generator=generator)[:96]
        scaled = {name: value * scales[name] for name, value in values.items()}
        with sdpa_kernel(SDPBackend.MATH):
            g = _slopes(loss(scaled, order[:64]), list(scaled.values()))
            norm = sum(each.abs().sum() for each in g)
            if not math.isfinite(float(norm)):
                break
            goal = norm
            if float(norm) <= 100:
                signs = [1e-3 * each.sign().detach() for each in g]
                after = dict(zip(scaled, map(torch.sub, scaled.values(), signs), strict=True))
                goal = loss(after, order[32:])
            optimiser.zero_grad()
            goal.backward()
        optimiser.step()
        with torch.no_grad():
            for scale in scales.values():
                scale.clamp_(min=0.01)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.mul_(scales[name])
    return model.train()


def _slopes(value: Tensor, parameters: list[Tensor]) -> list[Tensor]:
    """Slopes that can be differentiated again; zeros where there are none."""
    found = torch.autograd.grad(value, parameters, create_graph=True, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


WAYS: dict[str, Initialise] = {
    "as it is": as_it_is,
    "suggest": suggest,
    "known gains": known_gains,
    "LSUV": lsuv,
    "MetaInit": metainit,
    "GradInit": gradinit,
}


def ill_of_zoo() -> dict[str, Callable[[], nn.Module]]:
    """How each ill network of the zoo is built, by its number."""
    known = labels(load_result("zoo.nc"))
    ill = known["number"].values[known["default_accuracy"].values < 0.5]
    return {str(number): lambda n=int(number): zoo_network(n, SHAPE, CLASSES) for number in ill}


def patients() -> dict[str, Callable[[], nn.Module]]:
    """How each network of notebook 20 with a fault of its own is built, by its name."""
    ill = [each for each in PATIENTS if each.cause and each.white == 1]

    def built(patient: Patient) -> nn.Module:
        torch.manual_seed(0)
        return patient.build(SHAPE, CLASSES)

    return {patient.name: lambda patient=patient: built(patient) for patient in ill}


def compare(networks: dict[str, Callable[[], nn.Module]], steps: int, output: Path) -> None:
    """Append the accuracies of every way to the file, a row for each network."""
    data = load_dataset("mnist")
    lessons, test = data.examples("train", 20_000), data.examples("test", 500)
    x, y = data.examples("train", IMAGES)
    names = ["network", *WAYS, *(f"{way} seconds" for way in WAYS)]
    done = {row["network"] for row in rows_of(output)}
    with output.open("a", newline="") as file:
        writer = csv.DictWriter(file, names)
        if not done:
            writer.writeheader()
        for place, (name, build) in enumerate(networks.items()):
            if name in done:
                continue
            row: dict[str, float | str] = {"network": name}
            seed = int(name) if name.isdigit() else place
            for way, initialise in WAYS.items():
                model = build()
                begin = time.process_time()
                try:
                    model = initialise(model, x, y)
                except Exception as error:  # some cannot treat some networks
                    print(f"{name}: {way} leaves it as it is: {error}")
                    model = build()
                row[f"{way} seconds"] = round(time.process_time() - begin, 2)
                found = trained(model, DEFAULT, lessons, test, budget=steps, seed=seed)
                row[way] = round(float(found["accuracy"][-1]), 4)
            writer.writerow(row)
            file.flush()
            print(row, flush=True)


def rows_of(path: Path) -> list[dict[str, str]]:
    """Return the rows of a file, none where it is not there yet."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def report(path: Path) -> None:
    """Print means, and how far `suggest` is ahead, with 95% intervals over networks."""
    rows = rows_of(path)
    found = {way: np.array([float(row[way]) for row in rows]) for way in WAYS}
    rng = np.random.default_rng(0)
    again = rng.integers(0, len(rows), (10_000, len(rows)))

    def mean_of(values: np.ndarray) -> str:
        low, high = interval(values[again].mean(1))
        return f"{values.mean():6.3f} ({low:.3f} to {high:.3f})"

    print(f"{len(rows)} networks\n{'':14}accuracy                  suggest is ahead by       CPU s")
    for way, accuracy in found.items():
        seconds = np.mean([float(row[f"{way} seconds"]) for row in rows])
        ahead = mean_of(found["suggest"] - accuracy)
        print(f"{way:12}{mean_of(accuracy)}  {ahead}  {seconds:6.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("initialisations.csv"))
    parser.add_argument("--patients", action="store_true", help="of notebook 20")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    networks = patients() if options.patients else ill_of_zoo()
    chosen = list(networks)[options.first :: options.every]
    compare({name: networks[name] for name in chosen}, options.steps, options.output)
    print(describe())
    report(options.output)


if __name__ == "__main__":
    main()

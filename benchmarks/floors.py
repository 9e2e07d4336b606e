"""What the machine's arithmetic and memory set as a floor, and what each part takes: one table.

    python benchmarks/floors.py [--only fit read-out training probe verdict]

Every call runs once watched and then `--repeats` times on the clock; the fastest counts. Watched,
torch's operations say what they need at least: matrix products, convolutions and factorisations
their floating-point operations, at the rate of a large product in the same run (float64 counts
twice, complex numbers four times); all other operations the bytes that they read and write, at the
rate of a large copy. Their sum is the floor of this sequence of operations; what stays in caches
may be below it. What is above is overhead, shapes that compute more slowly, and memory that is
fetched from the system.
"""

import argparse
import math
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from machine import describe, gemm_rate, once, seconds
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from paperlib import Cascade, Network, initialise, load_dataset, mlp, probe
from paperlib.core.vision import torchvision
from paperlib.networks import cnn
from paperlib.training import train

PARTS = ("fit", "read-out", "training", "probe", "verdict")
PRICES = {torch.float64: 2, torch.complex64: 4, torch.complex128: 8}  # of one, in float32
NUMBERS = 2**26  # that are copied to know the bandwidth
Call = Callable[[], object]


class Floor(TorchDispatchMode):
    """Counts what torch's operations need at least.

    Attributes:
        operations: in floating point, of other numbers by PRICES.
        bytes: read and written by all but products and factorisations.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.bytes = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        made = [t for t in tree_leaves(result) if isinstance(t, Tensor)]
        count = self._operations(func, args, kwargs or {}, result)
        if count is not None:
            self.operations += count * PRICES.get(made[0].dtype, 1)
        elif not _is_view(func):
            self.bytes += sum(t.numel() * t.itemsize for t in (*given, *made))
        return result

    @staticmethod
    def _operations(func: Any, args: Any, kwargs: Any, result: Any) -> float | None:
        name = func.overloadpacket._qualified_op_name
        if func.overloadpacket in flop_registry:
            return float(flop_registry[func.overloadpacket](*args, **kwargs, out_val=result))
        if name == "aten::linalg_cholesky_ex":
            return _batch(args[0]) * args[0].shape[-1] ** 3 / 3
        if name == "aten::linalg_solve_triangular":
            return _batch(args[0]) * args[0].shape[-1] * args[1].shape[-2] * args[1].shape[-1]
        if name == "aten::_linalg_eigh":
            return _batch(args[0]) * 9 * args[0].shape[-1] ** 3
        return None


def _batch(matrices: Tensor) -> int:
    return math.prod(matrices.shape[:-2])


def _is_view(func: Any) -> bool:
    """Whether an operation returns what it was given, in another shape."""
    returns = func._schema.returns
    return bool(returns) and all(
        r.alias_info is not None and not r.alias_info.is_write for r in returns
    )


def bandwidth() -> float:
    """Bytes per second that a large copy reads and writes."""
    source = torch.rand(NUMBERS)
    target = torch.empty_like(source)
    return 2 * 4 * NUMBERS / seconds(lambda: target.copy_(source), repeats=9)


def cascade_of(network: Network, images: Tensor) -> Cascade:
    initialise(network, sigma_w2=1.5, sigma_b2=0.05, seed=0)
    return Cascade.for_network(network, images[:1])


def calls(parts: list[str]) -> Iterator[tuple[str, Call]]:
    """What is measured, each with its name."""
    data = load_dataset("mnist")
    (images, labels), test = data.examples("train", 2000), data.examples("test", 100)[0]
    shape = tuple(images.shape[1:])
    networks = {
        "MLP, 50 layers of 784": lambda: mlp(shape, depth=50, width=784),
        "CNN, 30 layers of 128 channels": lambda: cnn(shape, depth=30, channels=128),
    }
    for name, build in networks.items():
        some = images if "MLP" in name else images[:400]
        cascade = cascade_of(build(), some)
        if {"fit", "read-out"} & {*parts}:
            cascade.fit(some)
        if "fit" in parts:
            yield f"fit to {len(some)} images: {name}", lambda c=cascade, x=some: c.fit(x)
        if "read-out" in parts:
            yield f"100 images from all depths: {name}", lambda c=cascade: c.reconstruct(test)
    if "training" in parts:
        model = mlp(shape, depth=10, width=784, classes=10)
        initialise(model, sigma_w2=1.5, sigma_b2=0.05, seed=0)
        optimiser = torch.optim.Adam(model.parameters(), 1e-3)
        learn = {"steps": 50, "batch_size": 100, "optimiser": optimiser}
        yield (
            "50 steps of Adam: MLP, 10 layers of 784",
            lambda: train(model, (images, labels), **learn),
        )
    torch.manual_seed(0)
    resnet, pictures = torchvision.models.resnet18(), torch.rand(100, 3, 224, 224)
    classes = torch.arange(100) % 10
    if "probe" in parts:
        yield "probe: ResNet-18, 224×224, 100 images", lambda: probe(resnet, pictures, classes)
    if "verdict" in parts:
        yield "the same and its verdict", lambda: _judged(resnet, pictures, classes)


def _judged(model: nn.Module, images: Tensor, labels: Tensor) -> object:
    return probe(model, images, labels).verdict


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    rate, width = gemm_rate(), bandwidth()
    print(f"{describe()}, memory {width / 1e9:.1f} GB/s\n")
    print(
        "| | measured | floor: products | other memory | measured / floor |\n|---|---|---|---|---|"
    )
    for name, call in calls(given.only):
        with Floor() as floor:
            call()
        taken = min(once(call) for _ in range(given.repeats))
        products, rest = floor.operations / rate, floor.bytes / width
        ratio = taken / (products + rest)
        print(
            f"| {name} | {taken:.2f} s | {products:.2f} s | {rest:.2f} s | {ratio:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main())

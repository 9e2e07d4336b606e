"""Public models as they come from torchvision: a probe ends, changes nothing, and looks inside.

The sample of a larger zoo that runs in every test; benchmarks/models.py takes that one.
"""

import runpy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from checkout import ROOT
from torch import Tensor, nn

from paperlib import load_dataset, probe
from paperlib.core.vision import torchvision

public = torchvision.models


def vgg_layers() -> nn.Sequential:
    """The convolutions of VGG16."""
    return public.vgg.make_layers(public.vgg.cfgs["D"])


def small_head(model: nn.Module) -> nn.Module:
    """The same with one layer in place of three of 120 million weights."""
    model.classifier = nn.Linear(512 * 49, 10)
    return model


MODELS: dict[str, Callable[[], nn.Module]] = {
    "convnext": lambda: public.ConvNeXt([public.convnext.CNBlockConfig(16, 32, 2)]),
    "densenet": lambda: public.DenseNet(8, (3, 4, 5, 3), 16),
    "efficientnet": public.efficientnet_b0,
    "googlenet": lambda: public.googlenet(init_weights=False),
    "mnasnet": public.mnasnet0_5,
    "mobilenet": public.mobilenet_v3_small,
    "regnet": public.regnet_y_400mf,
    "resnet": public.resnet18,
    "resnet, bottlenecks": lambda: public.ResNet(public.resnet.Bottleneck, [2, 2, 2, 2]),
    "shufflenet": public.shufflenet_v2_x0_5,
    "squeezenet": public.squeezenet1_1,
    "swin": lambda: public.SwinTransformer([4, 4], 32, [2, 2], [2, 4], [4, 4]),
    "vgg": lambda: small_head(public.VGG(vgg_layers(), init_weights=False)),
    "vit": lambda: public.VisionTransformer(32, 8, 3, 4, 32, 64),
}


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the benchmark looks at."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return runpy.run_path(str(ROOT / "benchmarks/models.py"))


def model(name: str) -> tuple[nn.Module, Tensor]:
    images = load_dataset("patches").floats("train", grey=True)[:12].expand(-1, 3, -1, -1)
    return MODELS[name](), nn.functional.interpolate(images, (32, 32), mode="area")


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_probe_ends_and_leaves_the_model_as_it_was(name: str, judge: dict[str, Any]) -> None:
    found = judge["look"](lambda: model(name))
    assert found["error"] == ""
    assert found["unchanged"]
    assert found["finite"]
    assert found["stages"] >= 6
    assert found["kept"] > 0.2  # at the first stage; ten images leave little to fit
    assert not judge["is_coarse"](found)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenet", "mnasnet"])
def test_one_value_a_channel_and_image_makes_no_statistics_stale(name: str) -> None:
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match="only 12 images"):
        report = probe(*model(name))
    assert not report.diagnoses[0].ill


class Counts(nn.Linear):
    """Has another buffer after each call."""

    def __init__(self) -> None:
        super().__init__(64, 10)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x.flatten(1))


def test_a_model_that_does_not_run_is_told_apart_from_one_that_the_probe_fails_on(
    judge: dict[str, Any],
) -> None:
    images = torch.rand(12, 1, 8, 8)
    assert "does not run by itself" in judge["look"](lambda: (nn.Linear(3, 2), images))["error"]


@pytest.mark.parametrize("spoil", ["value", "mode", "hook", "name", "gradient"])
def test_what_was_changed_is_seen(spoil: str, judge: dict[str, Any]) -> None:
    network = Counts()
    before = judge["state_of"](network)
    assert judge["is_same"](before, judge["state_of"](network))
    spoils: dict[str, Callable[[], Any]] = {
        "value": lambda: network(torch.rand(2, 64)),
        "mode": network.eval,
        "hook": lambda: network.register_forward_hook(lambda *given: None),
        "name": lambda: setattr(network, "left", 1),
        "gradient": lambda: network(torch.rand(2, 64)).sum().backward(),
    }
    spoils[spoil]()
    assert not judge["is_same"](before, judge["state_of"](network))


@pytest.mark.parametrize(
    ("row", "coarse"),
    [
        ({"layers": 7, "stages": 1, "told": False}, True),
        ({"layers": 6, "stages": 1, "told": False}, False),
        ({"layers": 99, "stages": 1, "told": True}, False),
        ({"error": "no answer"}, False),
    ],
)
def test_few_stages_are_counted_where_nothing_is_said_of_them(
    row: dict[str, Any], coarse: bool, judge: dict[str, Any]
) -> None:
    assert judge["is_coarse"](row) is coarse

"""One way to look inside a model and one to train it: found in the code of the whole package."""

import ast
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from checkout import ROOT

PACKAGE = ROOT / "paperlib"

# Where else than in `training` gradients are accumulated, and why.
TRAINS = {
    "cascade/fitting.py": "fits stacks of inverses, in the published order of batches",
    "cascade/linear.py": "the step of one inverse, of which subclasses know a faster way",
    "instruments/channels/training_vgg.py": "a rule of the one loop, in reduced precision",
    "instruments/feedback_alignment.py": "a rule of the one loop, for networks side by side",
    "instruments/information_plane.py": "a rule of the one loop, for networks side by side",
    "instruments/sample_sets.py": "a rule of the one loop, for losses that are sums",
}
# Where optimisers take steps.
STEPS = {
    "training/loop.py": "the one loop",
    "cascade/fitting.py": "as above",
}
# Where else than in `activations` torch.autograd.grad is called, and why.
DIFFERENTIATES = {
    "instruments/prediction/baselines.py": "gradients of the loss at every depth, in one graph",
    "instruments/sample_sets.py": "of weights, in one graph with the slopes that predict a step",
}
# Where else than in `activations` a network's stages are called.
RUNS_STAGES = {
    "networks/network.py": "what a network is",
    "training/feedback.py": "cuts the gradient between parts, which no hook can",
}

Rule = Callable[[ast.AST], bool]


def is_hook(node: ast.AST) -> bool:
    name = node.attr if isinstance(node, ast.Attribute) else ""
    return name.startswith("register_") and name.endswith("hook")


def calls(node: ast.AST, name: str) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == name
    )


def is_backward(node: ast.AST) -> bool:
    return calls(node, "backward")


def is_step(node: ast.AST) -> bool:
    return calls(node, "step")


def is_differentiation(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and ast.unparse(node) in (
        "torch.autograd.grad", "autograd.grad", "torch.func.grad",
    )  # fmt: skip


def runs_stages(node: ast.AST) -> bool:
    """`network.stages(x)` or `network.stages[:level](x)`, or `for stage in …: x = stage(x)`."""
    if isinstance(node, ast.For):
        names = {each.id for each in ast.walk(node.target) if isinstance(each, ast.Name)}
        inside = (each for each in ast.walk(node) if isinstance(each, ast.Call))
        called = {each.func.id for each in inside if isinstance(each.func, ast.Name)}
        return "stage" in names & called
    if not isinstance(node, ast.Call):
        return False
    function = node.func.value if isinstance(node.func, ast.Subscript) else node.func
    return isinstance(function, ast.Attribute) and function.attr == "stages"


def files_with(rule: Rule) -> set[str]:
    return {name for name, tree in trees() if any(map(rule, ast.walk(tree)))}


@cache
def trees() -> list[tuple[str, ast.AST]]:
    files = ((path.relative_to(PACKAGE).as_posix(), path) for path in sorted(PACKAGE.rglob("*.py")))
    return [(name, ast.parse(path.read_text(encoding="utf-8"))) for name, path in files]


def outside(names: set[str], *rooms: str) -> set[str]:
    return {name for name in names if Path(name).parts[0] not in rooms}


@pytest.mark.slow
def test_only_activations_hangs_hooks_on_models() -> None:
    assert files_with(is_hook) == {f"activations/{n}.py" for n in ("tracing", "factors", "tuning")}


@pytest.mark.slow
def test_only_training_and_the_fit_of_inverses_learn() -> None:
    assert outside(files_with(is_backward), "training") == set(TRAINS)
    assert files_with(is_step) == set(STEPS)


@pytest.mark.slow
def test_gradients_of_activations_are_taken_in_one_place_but_for_losses_by_depth() -> None:
    assert outside(files_with(is_differentiation), "activations") == set(DIFFERENTIATES)


@pytest.mark.slow
def test_only_activations_runs_a_network_stage_by_stage() -> None:
    assert outside(files_with(runs_stages), "activations") == set(RUNS_STAGES)


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        (is_hook, "layer.register_forward_hook(look)"),
        (is_hook, "tensor.register_hook(look)"),
        (is_hook, "hang = layer.register_full_backward_hook"),
        (is_backward, "loss(model).sum().backward()"),
        (is_step, "optimiser.step()"),
        (is_differentiation, "slopes = torch.autograd.grad(loss, weights)"),
        (runs_stages, "network.stages(images)"),
        (runs_stages, "self.network.stages[:level](images)"),
        (runs_stages, "for n, stage in enumerate(stages):\n    x = stage(x)"),
    ],
)
def test_one_of_ones_own_would_be_found(rule: Rule, code: str) -> None:
    assert any(map(rule, ast.walk(ast.parse(code))))
    assert not any(map(rule, ast.walk(ast.parse("stages = list(network.stages); step = 1"))))

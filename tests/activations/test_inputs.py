"""What people give a model, as tensors with an axis of samples; nothing of theirs is used up."""

from collections import UserDict
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from paperlib.activations.arguments import EMBEDDED, Arguments, arguments_of, picked, runner
from paperlib.activations.giving import given
from paperlib.activations.inputs import Inputs
from paperlib.activations.tracing import ProbeError

X = torch.rand(60, 1, 4, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(60) % 3
MODEL = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))


def source(images: Any, model: nn.Module = MODEL) -> Tensor:
    return Inputs.in_order(images, model).source


class Two(nn.Module):
    """Takes more than a picture."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 4)

    def forward(self, x: Tensor, scale: float = 1.0, mask: Tensor | None = None) -> Tensor:
        x = self.layer(x.flatten(1) * scale)
        return x if mask is None else x * mask


# -- one tensor in other clothes


def test_arrays_lists_of_tensors_and_of_arrays_are_the_tensor() -> None:
    for images in (X.numpy(), list(X), list(X.numpy()), [x.numpy() for x in X]):
        torch.testing.assert_close(source(images), X)
    torch.testing.assert_close(source(X.double().numpy()), X)
    other_order = X.numpy().astype(X.numpy().dtype.newbyteorder())
    torch.testing.assert_close(source(other_order), X)


def test_bytes_are_divided_by_255_and_it_is_said() -> None:
    pixels = (X * 255).byte()
    for images in (pixels, pixels.numpy()):
        found = Inputs.in_order(images, MODEL)
        torch.testing.assert_close(found.source, pixels.float() / 255)
        assert found.said == ("pixels in bytes, 0 to 255, were divided by 255",)
    assert Inputs.in_order(X, MODEL).said == ()


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3), ("RGBA", 3)])
def test_pictures_become_channels_height_and_width(mode: str, channels: int) -> None:
    pictures = [Image.new(mode, (5, 4), color=k) for k in range(12)]
    found = source(pictures)
    assert found.shape == (12, channels, 4, 5)
    assert float(found[2, 0, 0, 0]) == pytest.approx(2 / 255)


def test_samples_of_several_shapes_are_refused_with_what_to_do() -> None:
    pictures = [Image.new("L", (4, 4)), Image.new("L", (5, 4))]
    with pytest.raises(ProbeError, match=r"\(1, 4, 4\) and \(1, 4, 5\); resize pictures"):
        given(pictures, MODEL)


# -- batches, loaders, data sets


def test_a_batch_of_pictures_and_labels_is_the_pictures() -> None:
    for images in ([X, LABELS], (X, LABELS)):
        found = Inputs.in_order(images, MODEL)
        torch.testing.assert_close(found.source, X)
        assert torch.equal(found.labels, LABELS)
        assert "taken for the labels" in found.said[0]
    by_name = Inputs.in_order({"image": X, "label": LABELS}, MODEL)
    torch.testing.assert_close(by_name.source, X)
    assert torch.equal(by_name.labels, LABELS)
    assert runner(MODEL)(by_name.values).shape == (60, 4)


def test_a_loader_gives_its_first_batches_and_its_labels() -> None:
    loader = DataLoader(TensorDataset(X.repeat(10, 1, 1, 1), LABELS.repeat(10)), 100)
    found = Inputs.in_order(loader, MODEL)
    assert len(found.source) == 300
    torch.testing.assert_close(found.source[:60], X)
    assert torch.equal(found.labels[:60], LABELS)
    assert "the first 3 batches of the DataLoader" in found.said
    assert len(source(DataLoader(TensorDataset(X), 16))) == 60


def test_a_shuffled_loader_is_as_random_afterwards_as_before() -> None:
    own = torch.Generator().manual_seed(5)
    loaders = [
        DataLoader(TensorDataset(X, LABELS), 16, shuffle=True),
        DataLoader(TensorDataset(X, LABELS), 16, shuffle=True, generator=own),
    ]
    for loader in loaders:
        before, its = torch.get_rng_state(), own.get_state()
        source(loader)
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.equal(own.get_state(), its)


class Pictures(Dataset[Any]):
    def __len__(self) -> int:
        return 1000

    def __getitem__(self, place: int) -> tuple[Image.Image, int]:
        return Image.new("L", (4, 4), color=place % 256), place


def test_a_data_set_gives_samples_spread_evenly() -> None:
    found = Inputs.in_order(Pictures(), MODEL)
    assert found.source.shape == (256, 1, 4, 4)
    assert (int(found.labels[0]), int(found.labels[-1])) == (0, 999)
    assert found.said[0] == "256 samples of the Pictures, evenly spaced, of 1000"


def test_a_data_set_without_a_length_gives_its_first_samples() -> None:
    class Endless(IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter([(x, 0) for x in X] * 20)

    found = Inputs.in_order(Endless(), MODEL)
    assert len(found.source) == 256
    torch.testing.assert_close(found.source[:60], X)


# -- several arguments


def test_numbers_none_and_tensors_without_axes_are_the_same_for_all_samples() -> None:
    for extra in (2.0, torch.tensor(2.0)):
        inputs = Inputs.in_order({"x": X, "scale": extra, "mask": None}, Two())
        torch.testing.assert_close(inputs.source, X)
        part = inputs.part(3, 5)
        assert isinstance(part, Arguments)
        assert part.tensors["x"].shape[0] == 2
    model = Two()
    values = Inputs.in_order({"x": X, "scale": 2.0}, model).part(0, 4)
    torch.testing.assert_close(runner(model)(values), model(X[:4], 2.0))
    values = Inputs.in_order((X, 2.0), model).part(0, 4)
    torch.testing.assert_close(runner(model)(values), model(X[:4], 2.0))


def test_any_mapping_is_a_dict_of_arguments() -> None:
    torch.testing.assert_close(source(UserDict({"x": X, "scale": 1.0}), Two()), X)


@pytest.mark.parametrize("name", ["mask", "attention_mask"])
def test_a_mask_in_floating_point_is_not_the_image(name: str) -> None:
    class Masked(nn.Module):
        def forward(self, **arguments: Tensor) -> Tensor:
            return arguments["x"].flatten(1) * arguments[name]

    inputs = Inputs.of({name: torch.ones(60, 16), "x": X}, Masked(), 0)
    assert inputs.place == "x"


def test_a_mask_that_samples_share_is_no_sample() -> None:
    inputs = Inputs.of({"x": X, "mask": torch.ones(4, 4)}, Two(), 0)
    assert arguments_of(inputs.values).how.fixed["mask"].shape == (4, 4)


def test_samples_may_be_counted_along_another_axis() -> None:
    times = torch.rand(5, 60, 3)  # (time, batch, features)
    inputs = Inputs.in_order(times, nn.LSTM(3, 4), batch_axis=1)
    torch.testing.assert_close(inputs.source, times.transpose(0, 1))
    places, _ = arguments_of(inputs.part(0, 7)).call()
    torch.testing.assert_close(places[0], times[:, :7])
    several = Inputs.in_order({"input": times}, nn.LSTM(3, 4), batch_axis={"input": -2})
    torch.testing.assert_close(several.source, times.transpose(0, 1))
    with pytest.raises(ProbeError, match="batch_axis must be an axis"):
        Inputs.in_order(times, nn.LSTM(3, 4), batch_axis=3)


# -- words


class Reader(nn.Module):
    """Words, looked up in a table whose own name the module does not tell."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds, self.table = nn.Embedding(2, 6), nn.Embedding(20, 6)
        self.layer = nn.Linear(6, 3)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor, mask: Tensor) -> Tensor:
        rows = self.table(input_ids) + self.kinds(token_type_ids)
        return self.layer((rows * mask[..., None]).mean(1))


def words() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 20, (60, 5), generator=generator)
    return {"token_type_ids": ids % 2, "input_ids": ids, "mask": torch.ones(60, 5)}


def test_of_words_the_vectors_in_the_models_table_are_reconstructed() -> None:
    model, given_words = Reader(), words()
    inputs = Inputs.of(given_words, model, 0)
    assert inputs.place == EMBEDDED
    ids = arguments_of(inputs.values).tensors["input_ids"]
    assert torch.equal(inputs.source, model.table(ids))
    assert "vectors from 'table' are rebuilt" in inputs.said[-1]


def test_the_vectors_of_words_can_be_moved() -> None:
    model = Reader()
    inputs = Inputs.of(words(), model, 0)
    run, still, moved = runner(model), inputs.part(0, 4), inputs.moved(0, 4, 0.5)
    ids = arguments_of(still).tensors
    own = {name: ids[name] for name in ("input_ids", "token_type_ids", "mask")}
    torch.testing.assert_close(run(still), model(**own))
    assert not torch.equal(run(moved), run(still))
    assert not any(m._forward_hooks for m in model.modules())


def test_whole_numbers_that_no_table_takes_are_refused() -> None:
    with pytest.raises(ProbeError, match=r"floating-point tensor .* nn.Embedding; got \(60, 4\)"):
        Inputs.of(torch.arange(240).view(60, 4), nn.Linear(4, 4), 0)


# -- what cannot be


def test_packed_sequences_and_graphs_are_refused_with_what_to_do() -> None:
    packed = pack_padded_sequence(torch.rand(12, 4, 3), torch.full((12,), 4), batch_first=True)
    with pytest.raises(ProbeError, match=r"PackedSequence.*padded tensor"):
        given(packed, MODEL)
    graph = type("Data", (SimpleNamespace,), {"__module__": "torch_geometric.data"})(x=X)
    with pytest.raises(ProbeError, match=r"graphs \(Data\).*edge_index"):
        given(graph, MODEL)


@pytest.mark.parametrize("images", ["photo.png", None, 3, {"x": 3}, [], {}, np.array(["a"])])
def test_what_holds_no_numbers_is_refused(images: Any) -> None:
    with pytest.raises(ProbeError, match=r"must be a tensor|must hold"):
        given(images, MODEL)


# -- which part of the output


RESULT = {"loss": torch.zeros(()), "logits": torch.ones(2, 3), "all": (torch.zeros(2), [X])}


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (None, RESULT), ("logits", RESULT["logits"]), ("all.1.0", X),
        (lambda result: result["logits"][:, 0], torch.ones(2)),
    ],
)  # fmt: skip
def test_an_output_is_picked_by_key_path_or_function(output: Any, expected: Any) -> None:
    found = picked(RESULT, output)
    assert found is expected or torch.equal(found, expected)
    assert picked((X, RESULT), 0) is X
    assert picked(SimpleNamespace(states=X), "states") is X


@pytest.mark.parametrize("output", ["states", "all.7", "logits.0.0"])
def test_an_output_that_is_not_there_names_those_that_are(output: str) -> None:
    with pytest.raises(ProbeError, match=r"no part '.*'; it is a dict of 'loss', 'logits', 'all'"):
        picked(RESULT, output)


@pytest.mark.parametrize(
    ("count", "size", "ends"),
    [
        (7, 3, [3, 7]),
        (6, 3, [3, 6]),
        (8, 3, [3, 6, 8]),
        (3, 1, [1, 2, 3]),
        (1, 4, [1]),
        (2, 5, [2]),
    ],
)
def test_no_sample_is_left_alone_unless_all_are(count: int, size: int, ends: list[int]) -> None:
    inputs = Inputs(torch.zeros(count, 4), count, None, "")
    assert list(inputs.runs(size)) == list(zip([0, *ends], ends, strict=False))

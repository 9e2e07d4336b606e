"""Files of fitted inverses; what a cascade makes of them is in test_cascade.py."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from paperlib.cascade.archive import Checkpoint, digest_of, read, write


def test_what_is_written_is_read(tmp_path: Path) -> None:
    tensors = {"b": torch.rand(2, 3).T, "a": torch.tensor(7)}
    write(tmp_path / "new" / "x.safetensors", tensors, {"fit": "this", "levels": [1, 2]})
    about, found = read(tmp_path / "new" / "x.safetensors")
    assert (about["fit"], about["levels"]) == ("this", [1, 2])
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_a_changed_number_changes_the_digest() -> None:
    one, other = torch.zeros(3), torch.zeros(3)
    assert digest_of([one]) == digest_of([other])
    other[1] = -0.0
    assert digest_of([one]) != digest_of([other])


def test_other_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    with pytest.raises(FileNotFoundError, match=r"no saved cascade at .*x\.safetensors"):
        read(file)
    for about in ({}, {"cascade": json.dumps({"format": 99})}):
        save_file({"a": torch.zeros(2)}, file, metadata=about)
        with pytest.raises(ValueError, match="is damaged or no cascade of format 1"):
            read(file)


def layers() -> list[nn.Module]:
    return [nn.Linear(2, 3), nn.Flatten(), nn.Linear(3, 1)]


def test_a_checkpoint_restores_the_first_stages_that_are_there(tmp_path: Path) -> None:
    first, second = layers(), layers()
    kept = Checkpoint(tmp_path, first, "fit")
    assert kept.restore() == 0
    kept.advance(2)
    again = Checkpoint(tmp_path, second, "fit")
    assert again.restore() == again.finished == 2
    assert torch.equal(first[0].weight, second[0].weight)
    assert not torch.equal(first[2].weight, second[2].weight)
    again.advance(1)
    assert Checkpoint(tmp_path, first, "fit").restore() == 3
    assert torch.equal(first[2].weight, second[2].weight)
    assert Checkpoint(tmp_path, first, "another fit").restore() == 0


def test_stages_after_a_missing_one_are_not_taken(tmp_path: Path) -> None:
    Checkpoint(tmp_path, layers(), "fit").advance(3)
    (tmp_path / "002.safetensors").unlink()
    assert Checkpoint(tmp_path, layers(), "fit").restore() == 1

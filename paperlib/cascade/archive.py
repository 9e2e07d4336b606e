"""Files of fitted inverses, which say what they belong to and notice damage."""

import hashlib
import json
import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor, nn

from paperlib.core.paths import write_whole

FORMAT = 1


def digest_of(tensors: Iterable[Tensor]) -> str:
    """Return the sha256 of the tensors' bytes, in hex."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(
            tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()


def write(file: Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    """Write a .safetensors file, complete or not at all.

    Args:
        file: its path.
        tensors: of the inverses, by name.
        about: what they belong to, in terms of JSON.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    digest = digest_of(tensors[name] for name in sorted(tensors))
    header = {"format": FORMAT, "inverses": digest, **about}
    write_whole(file, serialize(tensors, metadata={"cascade": json.dumps(header)}))


def read(file: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return what a file says about itself, and its tensors; checked against their digest.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is damaged or something else.
    """
    if not file.is_file():
        raise FileNotFoundError(f"no saved cascade at {file}")
    try:
        with safe_open(file, framework="pt") as opened:
            about = json.loads((opened.metadata() or {}).get("cascade", "{}"))
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{file} is damaged or is not a saved cascade: {error}") from error
    if about.get("format") != FORMAT:
        raise ValueError(f"{file} is damaged or no cascade of format {FORMAT}; fit a new one")
    if about["inverses"] != digest_of(tensors[name] for name in sorted(tensors)):
        raise ValueError(f"{file} is damaged: its inverses do not match their digest")
    return about, tensors


class Checkpoint:
    """The inverses that a fit has finished, one file per stage in a folder of its own.

    Args:
        folder: where; made if it is missing.
        inverses: of the fit; restored in place.
        fit: what must be equal for the files to be taken: a digest.
    """

    def __init__(
        self, folder: str | os.PathLike[str], inverses: Sequence[nn.Module], fit: str
    ) -> None:
        self._folder = Path(folder)
        self._inverses = inverses
        self._fit = fit
        self.finished = 0  # stages from the first on

    def restore(self) -> int:
        """The number of first stages whose inverses were found here and taken; a damaged file ends
        them, with a warning, as one of another fit does."""
        for inverse in self._inverses:
            try:
                about, tensors = read(self._file(self.finished + 1))
            except FileNotFoundError:
                break
            except ValueError as error:
                warnings.warn(f"{error}; this stage is fitted again", UserWarning, stacklevel=3)
                break
            if about.get("fit") != self._fit:
                break
            inverse.load_state_dict(tensors)
            self.finished += 1
        return self.finished

    def advance(self, stages: int) -> None:
        """Write the inverses of so many more finished stages."""
        for _ in range(stages):
            inverse = self._inverses[self.finished]
            write(self._file(self.finished + 1), inverse.state_dict(), {"fit": self._fit})
            self.finished += 1

    def _file(self, level: int) -> Path:
        return self._folder / f"{level:03d}.safetensors"

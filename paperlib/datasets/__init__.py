"""Labelled images in memory: by name, from a Keras-layout .npz, or from a folder of pictures."""

from typing import TYPE_CHECKING

from paperlib.core.lazy import exports

if TYPE_CHECKING:
    from paperlib.datasets.load import (
        KNOWN,
        PICTURE,
        UNRECOGNISED,
        Dataset,
        DownloadError,
        load_dataset,
        load_with_fallback,
    )
    from paperlib.datasets.places import FALLBACKS, NAMES, OFFLINE_NAMES, availability, located
else:
    __getattr__ = exports(__name__)

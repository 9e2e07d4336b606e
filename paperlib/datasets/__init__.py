"""Labelled images in memory: by name, from a Keras-layout .npz, or from a folder of pictures."""

from paperlib.datasets.load import (
    FALLBACKS,
    KNOWN,
    NAMES,
    OFFLINE_NAMES,
    PICTURE,
    UNRECOGNISED,
    Dataset,
    DownloadError,
    availability,
    load_dataset,
    load_with_fallback,
    located,
)

"""From an activation back to the image: one fitted inverse for each stage."""

from paperlib.cascade.cascade import Cascade

__all__ = ["Cascade"]

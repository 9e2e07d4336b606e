"""Where any model loses its input, and whether it will train."""

"""How deep the image survives: cascades of untrained networks."""

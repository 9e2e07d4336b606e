"""Look inside any PyTorch model, and leave it unchanged."""

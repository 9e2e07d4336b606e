"""Which predictor knows which networks train."""

"""Which predictor tells best which networks will train."""

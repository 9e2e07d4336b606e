"""What a trained network keeps of a digit."""

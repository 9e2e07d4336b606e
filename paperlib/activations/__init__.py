"""Any model from inside, left as it was."""

"""Which networks train, and whether the cascade predicts it."""

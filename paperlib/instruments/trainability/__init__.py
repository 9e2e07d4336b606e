"""Which networks train, and whether the cascade knew."""

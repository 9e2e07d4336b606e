"""What a run of each notebook says, in Markdown: its own numbers, computed from its results."""

"""What every room stands on: checks, settings, paths, provenance, seeds, progress."""

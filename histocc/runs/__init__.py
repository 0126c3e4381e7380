"""Runs: from a command line to the last checkpoint."""

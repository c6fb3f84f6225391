"""The run: its directory, its stages, and the one training loop."""

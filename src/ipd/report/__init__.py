"""Tables and the page of a run, made from its directory alone; nothing here imports jax."""

"""Imaginary Planning Distillation: offline reinforcement learning in JAX."""

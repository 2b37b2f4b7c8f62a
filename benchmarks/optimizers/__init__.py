"""Instruction optimizers side by side on one simulated endpoint: `python -m benchmarks.optimizers`."""

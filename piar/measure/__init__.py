"""Judges measured: against truth, baselines, each other, and on live logs."""

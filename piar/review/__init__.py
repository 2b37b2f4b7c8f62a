"""Annotators in Label Studio: disagreements out in frozen batches, trusted labels back."""

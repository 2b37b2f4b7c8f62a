"""Stages and shards: the store becomes training data."""

"""Types, task, the DuckDB sample store, metrics and statistics."""

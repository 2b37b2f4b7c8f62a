"""A simulated product search whose hidden policies are known."""

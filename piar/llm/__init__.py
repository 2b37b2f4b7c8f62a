"""Model clients: one protocol, batch first, errors as values."""

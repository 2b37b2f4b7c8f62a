"""How near to each other two ways to compute the same are, in the numbers that this run of the tests computes in."""

import os

CLOSE = 0.05 if os.environ.get("PIAR_PRECISION") == "bf16" else 1e-5  # of a probability, or a grade's expected value

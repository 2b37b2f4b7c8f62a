"""Compact trainers: SFT, Stepwise-GRPO and distillation of a student that answers first."""

import os

# Threads that spin while they wait cost more than they gain on small models, and several times the step on a machine
# that is not idle. Read by OpenMP when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

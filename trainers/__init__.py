"""Compact trainers: SFT, Stepwise-GRPO and distillation of a student that answers first."""

import os

# Threads that spin while they wait cost more than they gain on small models, and several times the step on a machine
# that is not idle. Read by OpenMP when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# oneDNN compiles a kernel for every new shape of a bf16 product and keeps 1,024 of them; batches differ in length, few
# serve again. One batch needs about this many. Read when the first product is computed.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")

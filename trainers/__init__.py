"""Compact trainers: SFT, Stepwise-GRPO and distillation of a student that answers first."""

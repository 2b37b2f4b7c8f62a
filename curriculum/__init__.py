"""Stages, mixtures and shards: the store becomes training data."""

from curriculum.plan import Plan, picture, plan
from curriculum.settings import CurriculumSettings
from curriculum.shards import export

__all__ = ["CurriculumSettings", "Plan", "export", "picture", "plan"]

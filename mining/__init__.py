"""Signals, difficulty, neighbours and selection: which samples deserve a second look."""

from mining.explain import Explanation, explain
from mining.mine import Confidence, MineReport, mine
from mining.settings import MiningSettings
from mining.signals import SIGNALS, signal

__all__ = ["SIGNALS", "Confidence", "Explanation", "MineReport", "MiningSettings", "explain", "mine", "signal"]

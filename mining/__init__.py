"""Signals, difficulty, neighbours and selection: which samples deserve a second look."""

from mining.explain import Explanation, explain
from mining.mine import MineReport, mine
from mining.settings import MiningSettings
from mining.signals import SIGNALS, signal

__all__ = ["SIGNALS", "Explanation", "MineReport", "MiningSettings", "explain", "mine", "signal"]

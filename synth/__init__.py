"""Structured synthesis for thin cells, and the screens it must pass."""

from synth.settings import SynthSettings
from synth.synthesize import SynthReport, synthesize

__all__ = ["SynthReport", "SynthSettings", "synthesize"]

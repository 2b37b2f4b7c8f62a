"""The offline teacher and reviser: they read and write rules in plain English, with no model behind them.

This is the room's door: those who connect, import a guideline or look for what errors share need nothing else.
"""

from piar.offline.endpoint import Faults, Simulator, running, serve
from piar.offline.guideline_import import GuidelineImport, import_guideline
from piar.offline.teacher import RulebookClient
from piar.offline.vocabulary import conditions

__all__ = [
    "Faults",
    "GuidelineImport",
    "RulebookClient",
    "Simulator",
    "conditions",
    "import_guideline",
    "running",
    "serve",
]

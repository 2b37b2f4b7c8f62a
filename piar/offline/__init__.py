"""The offline teacher and reviser: they read and write rules in plain English, with no model behind them.

This is the room's one door (import-linter checks it): to connect, import a guideline, and look for what errors share
and rules name.
"""

from piar.offline.endpoint import Faults, Simulator, running, serve
from piar.offline.guideline_import import GuidelineImport, import_guideline
from piar.offline.rule_words import NamedWord, named_words
from piar.offline.teacher import RulebookClient
from piar.offline.vocabulary import conditions
from piar.offline.words import Text, read_text

__all__ = [
    "Faults",
    "GuidelineImport",
    "NamedWord",
    "RulebookClient",
    "Simulator",
    "Text",
    "conditions",
    "import_guideline",
    "named_words",
    "read_text",
    "running",
    "serve",
]

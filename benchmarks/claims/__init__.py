"""The paper's claims (arXiv 2602.10006), as small experiments on the *simulated* shop, written down before they run.

`python -m benchmarks.claims` runs them; each `c*.py` says its hypothesis, arms, measure and what decides.
"""

"""Real models on real data: students beside baselines, and what mining finds; figures alone are kept."""

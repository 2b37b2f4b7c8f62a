"""Figures as ratios in one run: each benchmark times our way beside the bare one, interleaved."""

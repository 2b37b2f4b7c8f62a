"""The offline teacher and reviser: they read and write rules in plain English, with no model behind them."""

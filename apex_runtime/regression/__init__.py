"""Regression gates: what an engine cost when it was good, what it costs now, and one rule that tells the two apart."""

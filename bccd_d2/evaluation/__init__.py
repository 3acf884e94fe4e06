"""How good predictions are, and why they are wrong: metrics, error taxonomy, confidence; see docs/evaluation.md."""

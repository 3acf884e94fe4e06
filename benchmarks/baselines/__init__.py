"""The methods that benchmarks/side_by_side.py compares, their budget, their evaluator and their results."""

"""What benchmarks/side_by_side.py compares: each method, the budget it gets, how it is judged, what is shown."""

"""Numbers from scores: pure NumPy and pandas, no torch."""

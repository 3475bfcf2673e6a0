"""Metrics of evaluation episodes, their intervals, and `results.json`."""

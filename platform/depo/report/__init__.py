"""The HTML report, and trajectories as text."""

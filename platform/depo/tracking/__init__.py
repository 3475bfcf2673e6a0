"""MLflow as a mirror of what the run directory holds."""

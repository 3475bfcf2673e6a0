"""BC and preference training on TRL and PEFT: one body for Ray Train workers and Ray Tune trials."""

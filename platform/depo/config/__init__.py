"""The configuration of an experiment; importable without torch or Ray."""

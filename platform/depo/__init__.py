"""The experiment platform for efficient LLM agents."""

__version__ = "0.1.0"

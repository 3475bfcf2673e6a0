"""BabyAI levels of the `minigrid` package as text."""

"""Text environments: the contract, a registry, BabyAI, and a checker for any of them."""

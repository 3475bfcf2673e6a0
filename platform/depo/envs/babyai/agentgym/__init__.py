"""AgentGym's BabyAI: its texts, actions, plans and rewards, as they are."""

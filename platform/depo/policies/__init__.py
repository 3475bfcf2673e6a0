"""Whatever proposes the agent's next step: engines, endpoints, the scripted teacher."""

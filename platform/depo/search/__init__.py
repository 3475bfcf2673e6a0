"""Monte Carlo tree search over an agent's steps, without any input or output of its own."""

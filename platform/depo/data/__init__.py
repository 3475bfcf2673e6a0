"""From trajectories to training samples: labels, shorter thoughts, token ids and masks."""

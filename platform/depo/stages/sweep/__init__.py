"""A sweep: its trials, how they are chosen, scheduled and watched, and what is known of them on disk."""

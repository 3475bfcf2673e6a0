"""Single-turn maths: GSM8K, MATH and simultaneous equations."""

"""What Hypothesis makes up: sources, consumers, and what a user does with them."""

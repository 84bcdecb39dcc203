"""What a request must pass: who calls, how often, from where, and how much it may cost."""

"""What ships: its bytes, how near it is to JAX, how fast it runs, and its sample of pictures."""

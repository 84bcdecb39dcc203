"""Bundle -> answers. Only `jax_engine` imports JAX, and only when that engine is asked for."""

"""Bundle -> answers. Only `engines.jax` imports JAX, and only when that engine is asked for."""

"""An exported file against JAX: layer by layer, output by output, token by token."""

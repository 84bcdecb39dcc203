"""What runs a bundle: one module an engine, behind one protocol; `registry` lists them."""

"""What clients see: routes, schemas, error answers, and the middleware around every request."""

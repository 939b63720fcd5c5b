"""HTTP: routes, wire schemas, and which error is which status."""

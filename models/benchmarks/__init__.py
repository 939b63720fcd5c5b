"""How good is a judge? Benchmarks ask a running service through the SDK, like any other client."""

"""Networks that the tests cut: small ones that carry their own answer, and random ones."""

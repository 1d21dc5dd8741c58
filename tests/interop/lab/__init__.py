"""The laboratory: namespaces, guests, the server under test, and the scenarios that bring them together."""

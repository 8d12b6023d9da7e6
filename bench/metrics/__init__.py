"""A model and data → a number: Fréchet distances, bits/dim, somebody else's model."""

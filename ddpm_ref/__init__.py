"""Reference DDPM."""

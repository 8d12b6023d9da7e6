"""What `ddpm-bench schedule` found, as text and as a picture."""

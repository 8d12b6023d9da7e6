"""What an exact implementation of the whole interface says, and where another one has to agree with it."""

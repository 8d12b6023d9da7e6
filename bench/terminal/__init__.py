"""What a user meets first: messages about mistakes, and progress."""

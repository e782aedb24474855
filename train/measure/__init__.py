"""What masks are worth: the paper's evaluation."""

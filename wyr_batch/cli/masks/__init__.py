"""Commands that read masks back."""

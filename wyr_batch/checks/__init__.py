"""What a user gives and what files hold, checked before it is used."""

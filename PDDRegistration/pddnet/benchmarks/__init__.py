"""How long the 6-D layers and whole registrations take, what memory they need, and what the machine could do."""

"""Results become text: a table in the terminal, a JSON file."""

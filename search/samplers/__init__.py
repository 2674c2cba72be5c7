"""What is trained next: candidates, the surrogate that chooses among them, and seeded random draws."""

"""What is searched: dimensions, attention mechanisms, models and tasks. Nothing here knows how the search is done."""

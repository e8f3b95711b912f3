"""What a recipe is: its sections, its rules, how it is read. Imports neither torch nor ray."""

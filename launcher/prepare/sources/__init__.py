"""What a recipe reads: its files are found, told apart by their digests, and cut into units."""

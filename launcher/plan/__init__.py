"""What a run will take, told without a GPU and without torch."""

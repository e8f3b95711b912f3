"""What is noted of runs, wherever they are kept, and looking at it from outside."""

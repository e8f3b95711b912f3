"""The commands by what they are about, their arguments, and how they end."""

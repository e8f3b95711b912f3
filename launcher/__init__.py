"""The control plane: plan, prepare, drive, and the command line. Imports without torch."""

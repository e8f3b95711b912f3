"""A lab: several machines with a real SLURM, inside this one."""

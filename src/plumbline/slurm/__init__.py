"""SLURM: a command line becomes one readable sbatch file, is checked, submitted, and outlives what stops it."""

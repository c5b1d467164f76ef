"""What is found about a run, and said."""

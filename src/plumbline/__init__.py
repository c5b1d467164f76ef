"""Plumbline: a deep-learning research template in which every run is held to good practice."""

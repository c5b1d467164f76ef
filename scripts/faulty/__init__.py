"""A researcher's folder full of mistakes: models, data, steps and losses that go wrong, each in one known way."""

"""Networks. Each takes the `Spec` of its data first and yields logits or values: (B, *shape) -> (B, outputs)."""

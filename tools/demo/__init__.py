"""Everything that makes the built-in checkpoint: pictures, text, training, the judge and the evaluation."""

"""Token decoding, with torch and nothing of transformers: sampling, grammar, cache, loops, pixels."""

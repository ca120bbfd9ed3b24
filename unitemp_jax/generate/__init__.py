"""Running plans: sampler, guidance, decoding, prompt to pixels."""

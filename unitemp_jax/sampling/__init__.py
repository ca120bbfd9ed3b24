"""Running plans: step, sampler, stream, decoding, teacher."""

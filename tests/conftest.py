"""Strict JAX for every test: eight fake devices, no silent broadcasting.

Property tests draw the same cases in every run, so that a change is judged by
itself. New cases: `pytest --hypothesis-profile=search`.
"""

import os

os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['XLA_FLAGS'] = (
  os.environ.get('XLA_FLAGS', '') + ' --xla_force_host_platform_device_count=8'
)

import hypothesis
import jax

hypothesis.settings.register_profile('same', derandomize=True)
hypothesis.settings.register_profile('search', derandomize=False)
hypothesis.settings.load_profile('same')
jax.config.update('jax_numpy_rank_promotion', 'raise')

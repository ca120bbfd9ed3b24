"""Any-order video generation with one autoregressive student, in JAX."""

__version__ = '0.1.0'

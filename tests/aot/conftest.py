from optimized import optimized  # noqa: F401

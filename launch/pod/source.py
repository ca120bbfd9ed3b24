"""The working tree as one file that workers unpack."""

import hashlib
import os
import subprocess
import tarfile
import tempfile

from pod.errors import PodError

_MOST_BYTES = 100e6  # Of sources; what is larger is data or weights.


def tracked_files(root, missing_ok=False):
  """Returns the files that git tracks or would, those ignored left out.

  So secrets that are ignored, as they should be, stay on the laptop.
  """
  command = ['git', 'ls-files', '-z', '--cached', '--others']
  done = subprocess.run(
    [*command, '--exclude-standard'], cwd=root, capture_output=True, check=False
  )
  if done.returncode and missing_ok:
    return []
  if done.returncode:
    raise PodError(f'{root} is no git working tree; clone the repository.')
  names = sorted(set(done.stdout.decode().split('\0')) - {''})
  return [name for name in names if os.path.isfile(os.path.join(root, name))]


def check_size(root):
  """Refuses sources that are too large for every host to get.

  Raises:
    PodError: they are, or this is no git working tree.
  """
  sizes = [
    (os.path.getsize(os.path.join(root, name)), name)
    for name in tracked_files(root)
  ]
  total = sum(size for size, _ in sizes)
  if total > _MOST_BYTES:
    largest = ', '.join(
      f'{name} ({size / 1e6:.0f} MB)'
      for size, name in sorted(sizes, reverse=True)[:3]
    )
    raise PodError(
      f'the files that git does not ignore have {total / 1e6:.0f} MB, and '
      f'every host would get them; the largest are {largest}: name such files '
      'in .gitignore, or move them out of the clone.'
    )


def pack(root):
  """Writes the archive; returns its path, named by the hash of its contents.

  Equal trees give equal names, so that workers unpack each once.

  Raises:
    PodError: see `check_size`.
  """
  check_size(root)
  digest = hashlib.sha256()
  # A folder of its own: others may write to that of temporary files.
  folder = tempfile.mkdtemp(prefix='unitemp-')
  unnamed = os.path.join(folder, 'sources')
  with tarfile.open(unnamed, mode='w:gz') as archive:
    for name in tracked_files(root):
      path = os.path.join(root, name)
      with open(path, 'rb') as file:
        digest.update(f'{name}\0'.encode() + file.read() + b'\0')
      archive.add(path, arcname=name, recursive=False)
  path = os.path.join(folder, f'unitemp-{digest.hexdigest()[:16]}.tar.gz')
  os.rename(unnamed, path)
  return path

"""The working tree as one file that workers unpack."""

import hashlib
import io
import os
import subprocess
import tarfile
import tempfile

from pod.errors import PodError


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


def pack(root):
  """Writes the archive; returns its path, named by the hash of its contents.

  Equal trees give equal names, so that workers unpack each once.
  """
  digest, stream = hashlib.sha256(), io.BytesIO()
  with tarfile.open(fileobj=stream, mode='w:gz') as archive:
    for name in tracked_files(root):
      path = os.path.join(root, name)
      with open(path, 'rb') as file:
        digest.update(f'{name}\0'.encode() + file.read() + b'\0')
      archive.add(path, arcname=name, recursive=False)
  name = f'unitemp-{digest.hexdigest()[:16]}.tar.gz'
  # A folder of its own: others may write to that of temporary files.
  path = os.path.join(tempfile.mkdtemp(prefix='unitemp-'), name)
  with open(path, 'wb') as file:
    file.write(stream.getvalue())
  return path

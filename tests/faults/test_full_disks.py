"""A disk that is full at any moment: a sentence, and the same bits later."""

import os
import shlex
import subprocess
from pathlib import Path

import kill_harness
import pytest
import user_files

from unitemp_jax.cli import main as cli

CONFIGS = Path(__file__).parents[2] / 'configs'
COMMANDS = {
  'train': f'train --config={CONFIGS}/tiny_vae.py:test --workdir=OUT '
  '--config.num_steps=4 --config.checkpoint_every=2 --config.log_every=1 '
  '--config.data.dir=data',
  'evaluate generate': 'evaluate generate --suite=plain --model=model '
  '--manifest=bom.txt --frames=5 --order=forward,backward --out=OUT',
  'encode': f'encode --config={CONFIGS}/tiny_teacher.py:test --out=OUT '
  '--config.latents.vae=model/vae.safetensors --config.data.dir=data '
  '--config.latents.tokenizer=model/tokenizer.json',
  'encode prompts': 'encode bom.txt --model=model --out=OUT',
  'convert': 'convert --model=model --to=wan --out=OUT',
  'compare': 'compare A B --out=OUT',
}
# Of times, and of the folder's own name.
NOT_COMPARED = ('progress', 'goodput.jsonl', 'metrics.jsonl', 'checkpoints')
NOT_COMPARED += ('.written.json',)  # Hashes of pages that name their folder.


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return user_files.write(tmp_path_factory.mktemp('full'))


@pytest.fixture
def disk(tmp_path):
  """Returns what makes a disk of so many KiB, or gives it another size."""

  def resize(size):
    kind = f'size={size}k' + (',remount' if os.path.ismount(tmp_path) else '')
    command = ['mount', '-t', 'tmpfs', '-o', kind, 'tmpfs', str(tmp_path)]
    try:
      subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
      pytest.skip('may not mount a small disk')
    return tmp_path

  yield resize
  if os.path.ismount(tmp_path):
    subprocess.run(['umount', '--lazy', str(tmp_path)], check=True)


def contents(out):
  return {
    str(path.relative_to(out)): path.read_bytes().replace(
      str(out).encode(), b'OUT'
    )
    for path in out.rglob('*')
    if path.is_file() and not {*path.relative_to(out).parts} & {*NOT_COMPARED}
  }


def run(verb, out):
  try:
    return cli.main(shlex.split(COMMANDS[verb].replace('OUT', str(out))))
  except SystemExit as error:
    return error.code


def used(out):
  """KiB of files, in pages."""
  return sum(-(-p.stat().st_size // 4096) * 4 for p in out.rglob('*.*'))


def cases():
  for verb in COMMANDS:
    for share in (0, 0.5, 0.9):
      quick = share == 0.5 and verb in ('convert', 'compare', 'encode prompts')
      marks = () if quick else pytest.mark.slow
      yield pytest.param(verb, share, id=f'{verb}-{share}', marks=marks)


@pytest.mark.parametrize('verb, share', cases())
def test_a_full_disk(folder, whole, disk, monkeypatch, capsys, verb, share):
  monkeypatch.chdir(folder)
  out = disk(max(4, int(share * used(whole(verb))))) / 'o'
  assert run(verb, out) == 2
  # What Orbax's threads print as well, pytest itself takes for a failure.
  lines = capsys.readouterr().err.splitlines()
  said = [line for line in lines if line.startswith('unitemp: error')]
  assert len(said) == 1 and ('room' in said[0] or 'No space' in said[0]), said
  disk(2**16)
  assert run(verb, out) == 0
  assert contents(out) == contents(whole(verb))
  if verb == 'train':
    assert not kill_harness.differences(out, whole(verb))


@pytest.fixture(scope='module')
def whole(folder, tmp_path_factory):
  """Returns what a command leaves where there is room."""
  made = {}

  def make(verb):
    if verb not in made:
      with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        out = tmp_path_factory.mktemp('whole') / 'o'
        assert run(verb, out) == 0
      made[verb] = out
    return made[verb]

  return make

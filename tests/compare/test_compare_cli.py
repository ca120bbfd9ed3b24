"""The command as a user runs it, and its pages in a browser."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
from conftest import PROMPTS

from unitemp_jax.cli import main as cli
from unitemp_jax.evaluation.metrics.results import ResultTable


@pytest.fixture(scope='module')
def compared(folders, tmp_path_factory):
  out = tmp_path_factory.mktemp('compared')
  rng = np.random.default_rng(0)
  noise, latents = rng.standard_normal((2, 3, 4, 4, 6)).astype(np.float32)
  ours, theirs = (
    folders / 'ours' / '0004-x.npz',
    folders / 'causvid' / 'output_004.npz',
  )
  np.savez(ours, noise=noise, latents=latents)
  # PyTorch's axes, and an error of a tenth.
  np.savez(
    theirs,
    noise=noise.transpose(0, 3, 1, 2),
    latents=1.1 * latents.transpose(0, 3, 1, 2),
  )
  code = cli.main(
    [
      'compare',
      f'ours={folders / "ours"}',
      f'causvid={folders / "causvid"}',
      f'still={folders / "still"}',
      '--baseline=folder,causvid,folder',
      f'--prompts={folders / "prompts.txt"}',
      '--trials=4',
      f'--out={out}',
    ]
  )
  assert code == 0
  return out


def test_every_file_is_there_and_says_who_is_better(compared):
  text = (compared / 'comparison.md').read_text()
  against, still = text.split('## ours against still')
  line = next(x for x in against.splitlines() if x.startswith('| BFR |'))
  assert 'ours better' in line
  lines = [x for x in still.splitlines() if x.startswith('| ')]
  assert not any('still better' in x for x in lines)
  assert any('no pair in which both move' in x for x in lines)
  table = ResultTable.from_json(compared / 'metrics.json')
  gap = table.select('relative RMS of latents')
  assert [round(r.value, 3) for r in gap] == [0.1]
  clips = list(csv.DictReader((compared / 'clips.csv').open()))
  assert len(clips) == 3 * len(PROMPTS)
  assert {c['system'] for c in clips} == {'ours', 'causvid', 'still'}
  assert float(clips[0]['BFR']) > 0


def test_the_gallery_links_videos_strips_and_orders(compared):
  text = (compared / 'index.html').read_text()
  links = re.findall(r'class="player[^"]*" href="([^"]+)"', text)
  assert len(links) == 3 * len(PROMPTS)
  for link in links:
    assert (compared / link.replace('%20', ' ').replace('%2C', ',')).exists()
  assert len(list((compared / 'pictures').glob('*.strip.jpg'))) == 3 * len(
    PROMPTS
  )
  # Three blocks, made backward by ours and as they play by the others.
  assert text.count('<ol class="cascade"') == 3 * len(PROMPTS)
  assert 'blind/index.html' in text


def test_the_same_command_again_measures_nothing(compared, folders, capsys):
  measured = list((compared / 'measured').glob('*.npz'))
  before = [path.stat().st_mtime_ns for path in measured]
  arguments = ['compare', str(folders / 'ours'), str(folders / 'still')]
  assert cli.main([*arguments, '--trials=0', f'--out={compared}']) == 0
  assert before and before == [path.stat().st_mtime_ns for path in measured]
  assert capsys.readouterr().out.splitlines()[-1].endswith('index.html')


def test_orders_of_one_folder_are_compared(folders, tmp_path, capsys):
  source = sorted((folders / 'ours').glob('*.mp4'))
  for order in ('forward', 'backward'):
    for path in source:
      copy = tmp_path / 'set' / order / path.name
      copy.parent.mkdir(parents=True, exist_ok=True)
      shutil.copy(path, copy)
      record = {'prompt': path.stem, 'order': order, 'sample': 0}
      copy.with_suffix('.json').write_text(json.dumps(record))
  arguments = ['compare', str(tmp_path / 'set'), '--dry_run']
  assert cli.main([*arguments, f'--out={tmp_path / "out"}']) == 0
  said = capsys.readouterr().out
  starts = {line.partition(' in ')[0] for line in said.splitlines()}
  assert starts == {'backward: 6 clips', 'forward: 6 clips'}
  assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
  ('arguments', 'reason'),
  [
    (['{ours}', '--out={out}'], 'single system'),
    (['{ours}', '{none}', '--out={out}'], 'is not a folder'),
    (['{ours}', '{still}', '--baseline=sora', '--out={out}'], 'sora'),
    (['{ours}', '{causvid}', '--out={out}'], '--baseline=causvid'),
    (
      ['{ours}', '{longlive}', '--baseline=self_forcing', '--out={out}'],
      "those of 'longlive'",
    ),
    (['{ours}', '{ours}', '--baseline=a,b,c', '--out={out}'], 'none of'),
    (['{still}', '{causvid}', '--baseline=causvid', '--out={out}'], 'no two'),
    (['{ours}', '{still}', '--blocks=8', '--out={out}'], 'FIRST:PERIOD'),
    (['{ours}', '{still}', '--workers=0', '--out={out}'], '--workers'),
    (['votes', '{none}.json', '--key={none}.json'], 'cannot be read'),
    (['numbers', '{none}', '{none}'], 'There is no file'),
  ],
)
def test_bad_input_is_one_sentence(
  folders, tmp_path, capsys, arguments, reason
):
  names = ('ours', 'still', 'causvid', 'longlive', 'none')
  places = {name: folders / name for name in names}
  places['out'] = tmp_path / 'out'
  filled = [argument.format(**places) for argument in arguments]
  assert cli.main(['compare', *filled]) == 2
  said = capsys.readouterr().err
  assert said.startswith('unitemp: error: ') and reason in said
  assert not (tmp_path / 'out').exists()

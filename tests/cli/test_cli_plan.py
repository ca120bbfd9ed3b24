"""`unitemp plan` prints, checks, draws and saves, or says what is wrong."""

import json
from xml.etree import ElementTree

import pytest

from unitemp_jax.cli.plan import main
from unitemp_jax.errors import UserError
from unitemp_jax.plans import text


def test_prints_the_table(capsys):
  assert main(['--order=backward', '--frames=33']) == 0
  out = capsys.readouterr().out
  assert '6..8' in out and '33 frames' in out and 'wrote' not in out


def test_writes_json_and_svg_and_reads_back(tmp_path, capsys):
  saved, drawn = tmp_path / 'plan.json', tmp_path / 'plan.svg'
  arguments = ['--order=inbetween', '--first=9', '--last=1', '--rows=7']
  assert main([*arguments, '--start_level=2', f'--out={saved}']) == 0
  first = capsys.readouterr().out
  assert f'wrote {saved}' in first
  plan = text.load(saved)
  assert plan.num_rows == 7 and plan.preloaded()[1].tolist() == [0, 1, 2, 9]
  assert main([f'--plan={saved}', f'--out={drawn}']) == 0
  ElementTree.parse(drawn)
  assert capsys.readouterr().out.replace(str(drawn), str(saved)) == first


@pytest.mark.parametrize(
  ('arguments', 'words'),
  [
    ('--order=extend --clip=9 --before=24 --after=12', 'positions -6..5'),
    ('--order=extend --after=32 --prompts=16:1', '33 frames'),
    ('--order=keyframes --frames=61 --given=0,20,36:9', 'buffer: 19 latents'),
    ('--order=transition --frames=33 --first=5', '33 frames'),
    ('--order=regenerate --frames=61 --replace=21:31', '6..8'),
    ('--order=story --scenes=24,20 --connections=8 --loop', '61 frames'),
    ('--order=story --scenes=24,20 --given=16 --connections=8', '53 frames'),
    ('--order=loop --frames=61 --window=6', '61 frames in a loop'),
    ('--order=long --frames=121 --sinks=both --span=21', '6 of them sinks'),
    (
      '--order=long --frames=121 --direction=backward --window=6 --last=1',
      'at most 6 seen',
    ),
  ],
)
def test_every_workflow_is_printed_and_read_back(
  tmp_path, capsys, arguments, words
):
  path = tmp_path / 'plan.json'
  assert main([*arguments.split(), f'--out={path}']) == 0
  out = capsys.readouterr().out
  assert words in out
  assert main([f'--plan={path}', '--window=99', '--span=99']) == 0
  assert capsys.readouterr().out == out.replace(f'wrote {path}\n', '')
  with pytest.raises(UserError, match='trained on 3 latents'):
    main([f'--plan={path}', '--span=3'])


def test_dry_run_writes_nothing(tmp_path):
  path = tmp_path / 'plan.svg'
  assert main(['--order=loop', f'--out={path}', '--dry_run']) == 0
  assert not path.exists()


@pytest.mark.parametrize(
  ('arguments', 'words'),
  [
    ([], 'either --order or --plan'),
    (['--order=sideways'], 'invalid choice'),
    (['--order=forward', '--frames=32'], 'use 29 or 33'),
    (['--order=forward', '--frames=-5'], 'use 1 or 5'),
    (['--order=forward', '--frames=many'], 'invalid int'),
    (['--order=forward', '--frames=33', '--first=10'], 'use 9 or 13'),
    (['--order=forward', '--anchors=4'], r'anchors is 4.*use 0\.\.3'),
    (['--order=inbetween', '--last=0'], r'give both \(--first'),
    (['--order=forward', '--colour=red'], 'unrecognized'),
    (['--order=forward', '--rows=1'], 'cannot be padded'),
    (['--order=forward', '--out=plan.png'], 'must end in'),
    (['--order=forward', '--plan=plan.json'], 'either --order or --plan'),
    (['--plan=plan.json', '--frames=33'], '--frames: belongs to'),
    (['--order=forward', '--before=4'], '--before: order forward does not'),
    (['--order=extend', '--before=6'], 'use 4 or 8'),
    (['--order=extend', '--clip=4', '--after=4'], 'use 1 or 5'),
    (['--order=extend', '--sides=up', '--after=4'], 'use alternate, past'),
    (['--order=keyframes', '--given=10'], 'use 8 or 12'),
    (['--order=keyframes', '--given=x'], 'pairs of whole numbers'),
    (['--order=keyframes', '--prompts=8'], 'pairs of whole numbers'),
    (['--order=regenerate'], 'as --replace=9:19'),
    (['--order=regenerate', '--replace=20:31'], 'use 21:31'),
    (['--order=regenerate', '--replace=1:31'], r'end at 3\.\.27'),
    (['--order=story', '--scenes=9,9'], 'use 8 or 12'),
    (['--order=story', '--scenes=a'], 'whole numbers with commas'),
    (['--order=long', '--sinks=both'], 'give --span'),
    (['--plan=missing.json'], 'no file missing'),
    (['--order=forward', '--out=/dev/null/plan.svg'], 'cannot write'),
    (['--order=forward', '--frames=100000005'], 'at most 100001'),
    (['--order=forward', '--rows=1000000000'], 'at most 100001'),
    (['--order=extend', '--after=400000'], 'at most 100001'),
    (['--order=forward', '--prompts=0:9999999999'], 'too large'),
    (['--order=forward', '--prompts=0:99999999'], 'up to 10000'),
  ],
)
def test_bad_input_is_one_sentence(tmp_path, monkeypatch, arguments, words):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(UserError, match=words) as caught:
    main(arguments)
  assert '\n' not in str(caught.value)
  assert list(tmp_path.iterdir()) == []


def test_an_impossible_plan_is_refused_and_nothing_overwritten(tmp_path):
  path, out = tmp_path / 'plan.json', tmp_path / 'out.svg'
  main(['--order=backward', f'--out={path}'])
  tree = json.loads(path.read_text())
  tree['rows'][1]['visible'] = 8
  path.write_text(json.dumps(tree))
  out.write_text('mine')
  with pytest.raises(UserError, match='row 1'):
    main([f'--plan={path}', f'--out={out}'])
  assert out.read_text() == 'mine'
  with pytest.raises(UserError, match='exists'):
    main(['--order=forward', f'--out={out}'])
  assert out.read_text() == 'mine'

"""The documentation: short, narrow, and naming only what is there."""

import contextlib
import functools
import io
import pathlib
import re

import pytest
from test_layering import FLOORS

from unitemp_jax.cli import main as cli
from unitemp_jax.errors import UserError
from unitemp_jax.training.config import load_config

ROOT = pathlib.Path(__file__).parent.parent
MAX_LINES, MAX_WIDTH = 250, 100

# A path of the repository, as code, in a sentence: below one of its folders, or
# a source file in any.
NAMED = re.compile(
  r'`((?:unitemp_jax|configs|launch|tests)/[\w./]*\w|'
  r'[a-z_]+(?:/\w+)*\.(?:py|sh))[`:/]',
  re.ASCII,
)
# Folders of the package may be named from within it.
FOLDERS = ('', 'unitemp_jax')
OPTION = re.compile(r'(?<![\w-])--([A-Za-z]\w*)')
CONFIG = re.compile(r'--config=(configs/\w+\.py(?::\w+)?)')
OVERRIDE = re.compile(r'--config\.([\w.]+)')
# Words between `unitemp` and the options: verbs of verbs, and their kinds.
WORDS = re.compile(r'unitemp ([a-z_]+)((?: [a-z_]+)?)')


def pages():
  skipped = ('.venv', 'out', 'runs', 'data', 'build')
  found = [
    path
    for path in sorted(ROOT.rglob('*.md'))
    if path.relative_to(ROOT).parts[0] not in skipped
    and not any(p.startswith('.') for p in path.relative_to(ROOT).parts)
  ]
  assert ROOT / 'README.md' in found
  return found


PAGES = pytest.mark.parametrize(
  'path', pages(), ids=lambda path: str(path.relative_to(ROOT))
)


def wide_rows(text):
  """Lines of tables that are wider than a screen."""
  lines = text.splitlines()
  return [x for x in lines if x.startswith('|') and len(x) > MAX_WIDTH]


def headings(text):
  """The names by which links reach the headings of a page."""
  found = re.findall(r'^#+ (.*)$', text, re.MULTILINE)
  return {
    re.sub(r'[^\w -]', '', head.lower()).replace(' ', '-') for head in found
  }


def broken_links(text, folder):
  """Links of a page that lead nowhere; those to other hosts are not tried."""
  found = []
  links = re.findall(r'\]\(([^)\s]+)\)', text)
  links += re.findall(r'^\[\w+\]: (\S+)$', text, re.MULTILINE)
  for link in links:
    place, _, anchor = link.partition('#')
    if '://' in place:
      continue
    target = folder / place if place else None
    if target is not None and not target.exists():
      found.append(link)
    elif anchor:
      page = text if target is None else target.read_text()
      if anchor not in headings(page):
        found.append(link)
  return found


def missing_files(text, folder):
  """Paths of the repository that a page names and that are not there."""
  return [
    name
    for name in NAMED.findall(text)
    if not any((ROOT / at / name).exists() for at in FOLDERS)
    and not (folder / name).exists()
    # A name alone may be of a file in a folder of the package.
    and ('/' in name or not any((ROOT / 'unitemp_jax').rglob(name)))
  ]


def commands(text):
  """Every `unitemp ...` of a page, continued lines joined, comments cut."""
  text = text.replace('\\\n', ' ')
  spans = re.findall(r'`(unitemp [^`]*)`', text)
  blocks = re.findall(r'^ *(unitemp .*)$', text, re.MULTILINE)
  # What follows `--` or another command is not for this one.
  return [re.split(r'  +#| -- |[;&|]', one)[0] for one in spans + blocks]


@functools.cache
def options_of(verb, word):
  """Options of a verb, or of a verb's own verb, from its `--help`."""
  out = io.StringIO()
  with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
    cli.main([verb, *([word] if word else []), '--help'])
  return frozenset(OPTION.findall(out.getvalue()))


def wrong_options(command):
  """What a command names that its verb does not have."""
  if not (words := WORDS.match(command)):
    return []  # `unitemp VERB --help`
  verb, word = words.groups()
  if verb not in cli.VERBS:
    return [verb]
  # A word that is a verb of the verb has a help of its own.
  known = options_of(verb, '')
  if word and options_of(verb, word.strip()) != known:
    known = options_of(verb, word.strip())
  own = OVERRIDE.sub('', command)
  wrong = [name for name in OPTION.findall(own) if name not in known]
  config = CONFIG.search(command)
  if config and '...' not in command:
    words = [f'--config.{key}' for key in OVERRIDE.findall(command)]
    wrong += unknown_keys(config[1], words)
  return wrong


def unknown_keys(config, words):
  """Overrides of keys that a config does not have."""
  settings = load_config(config, [])
  wrong = []
  for word in words:
    at = settings
    for key in word.removeprefix('--config.').split('.'):
      if key not in at:
        wrong.append(word)
        break
      at = at[key]
  return wrong


def test_the_readme_is_short():
  lines = (ROOT / 'README.md').read_text().splitlines()
  assert len(lines) <= MAX_LINES


@PAGES
def test_tables_fit_a_screen(path):
  assert wide_rows(path.read_text()) == []


@PAGES
def test_links_and_files_are_there(path):
  text = path.read_text()
  assert broken_links(text, path.parent) == []
  assert missing_files(text, path.parent) == []


@PAGES
def test_commands_have_their_options(path, monkeypatch):
  monkeypatch.chdir(ROOT)
  found = {one: wrong_options(one) for one in commands(path.read_text())}
  assert {one: wrong for one, wrong in found.items() if wrong} == {}


def test_the_floors_are_those_that_are_tested():
  text = (ROOT / 'unitemp_jax' / 'README.md').read_text()
  rows = re.findall(r'^\| \d \| (.*) \|$', text, re.MULTILINE)
  floors = [set(re.findall(r'`([\w.]+)`', row)) for row in rows]
  assert floors == [
    folders for floor in FLOORS if (folders := in_folders(floor))
  ]
  assert in_folders(('errors', 'plans')) == {'plans'}


def in_folders(names):
  """Those of the names that are folders; files are not listed."""
  places = {name: name.replace('.', '/') for name in names}
  return {n for n, at in places.items() if (ROOT / 'unitemp_jax' / at).is_dir()}


CITED = re.compile(r'`unitemp_jax/README\.md`, ([A-Z][A-Za-z ]*)[).]')


def cited_parts(source):
  """Parts of the method that a source file cites, `Anchors`, `One step`."""
  words = ' '.join(source.replace('#', ' ').split())
  found = [part for one in CITED.findall(words) for part in one.split(' and ')]
  return {part.strip() for part in found}


def test_what_comments_cite_is_a_part_of_the_method():
  there = headings((ROOT / 'unitemp_jax' / 'README.md').read_text())
  cited = {
    (path.name, part)
    for path in (ROOT / 'unitemp_jax').rglob('*.py')
    for part in cited_parts(path.read_text())
  }
  assert len(cited) > 5
  wrong = {c for c in cited if c[1].lower().replace(' ', '-') not in there}
  assert wrong == set()
  assert cited_parts('(`unitemp_jax/README.md`, No\n  part).') == {'No part'}


def test_controls(monkeypatch):
  """Each of the above fails on what it should find."""
  monkeypatch.chdir(ROOT)
  assert wide_rows('| ' + 'x' * 100 + ' |') and not wide_rows('x' * 200)
  text = '# A B\n[a](none.md) [b](README.md#none) [c](#a-b) [d](http://x/y)'
  assert broken_links(text, ROOT) == ['none.md', 'README.md#none']
  assert broken_links('[a]: none.md', ROOT) == ['none.md']
  named = 'in `configs/none.py:test` and `configs/wan.py` and `unitemp_jax/n/`'
  assert missing_files(named, ROOT) == ['configs/none.py', 'unitemp_jax/n']
  named = '`models/dit.py`, `models/none.py`, `dit.py`, `none.py`, `x.json`'
  assert missing_files(named, ROOT) == ['models/none.py', 'none.py']
  page = (
    'run `unitemp plan --oder=loop` or\n\n  unitemp nothing --x \\\n   --y\n'
  )
  assert [wrong_options(one) for one in commands(page)] == [
    ['oder'],
    ['nothing'],
  ]
  tiny = 'unitemp train --config=configs/tiny_vae.py --workdir=x --config.'
  assert wrong_options(f'{tiny}num_steps=3') == []
  assert wrong_options(f'{tiny}steps=3') == ['--config.steps']
  assert (
    wrong_options('unitemp evaluate folder DIR --reference=x --out=x') == []
  )
  assert wrong_options('unitemp evaluate folder DIR --only=vae') == ['only']
  with pytest.raises(UserError):
    load_config('configs/none.py', [])

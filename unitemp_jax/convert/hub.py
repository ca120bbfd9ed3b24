"""Weights by their name on the Hugging Face Hub: hf://OWNER/NAME/file@revision.

Files come through `huggingface_hub`, into its cache, with its tokens and its
variables (HF_ENDPOINT, HF_TOKEN, HF_HOME, HF_HUB_OFFLINE). What is in the cache
needs no network if its file is named.
"""

import contextlib
import dataclasses
import re
from pathlib import Path, PurePosixPath
from typing import Any

from unitemp_jax import files
from unitemp_jax.errors import UserError, optional

_INDEX = '.index.json'
_KINDS = (_INDEX, '.safetensors', '.pth', '.pt', '.bin')  # the first that fits


_OFFLINE = (
  ' cannot be fetched without network, and there is no copy of it in the '
  'cache, where only files are found by name, not folders; download it where '
  'there is network (hf download), or set HF_ENDPOINT to a mirror.'
)


@dataclasses.dataclass(frozen=True)
class Name:
  """A file, or a folder with one checkpoint, of a repository."""

  repository: str  # OWNER/NAME
  path: str  # within it, '' for its root
  revision: str | None  # a branch, tag or commit; None for the default branch


def is_name(text: object) -> bool:
  """Whether it is written as a name on the hub."""
  return str(text).startswith('hf:/')


def parse(text: object) -> Name:
  """Reads hf://OWNER/NAME[/path][@revision]; @revision may follow NAME."""
  match = re.fullmatch(
    r'hf:/+([\w.-]+/[\w.-]+)(?:@([\w.-]+))?(?:/+([^@]*?))?/*(?:@(.+))?',
    str(text),
  )
  if not match or (match[2] and match[4]):
    raise UserError(
      f'{text} is no name on the hub; write hf://OWNER/NAME/file@revision, '
      'where file and revision may be left out.'
    )
  return Name(match[1], match[3] or '', match[2] or match[4])


def fetch(text: object) -> Path:
  """Returns a checkpoint of the hub as a file on this machine.

  What belongs to it comes along: the parts of an index, the configs beside it.
  """
  name = parse(text)
  with optional(f'{text} is on the Hugging Face Hub', 'hub'):
    import huggingface_hub
  from huggingface_hub import errors
  from huggingface_hub.utils import logging

  logging.set_verbosity_error()  # Not of each attempt without network.

  def get(file: str) -> Path:
    return Path(
      huggingface_hub.hf_hub_download(
        name.repository, file, revision=name.revision
      )
    )

  try:
    found = name.path
    if not found.endswith(_KINDS):  # Names of folders may have a dot, too.
      listed = huggingface_hub.HfApi().list_repo_files(
        name.repository, revision=name.revision
      )
      if found not in listed:
        found = _checkpoint(listed, name.path, text)
    path = get(found)
    for beside in ('config.json', 'adapter_config.json'):
      with contextlib.suppress(errors.EntryNotFoundError):
        get(str(PurePosixPath(found).with_name(beside)))
    if found.endswith(_INDEX):
      parts = files.read_json(path, 'an index', keys=('weight_map',))
      for part in sorted(set(parts['weight_map'].values())):
        get(str(PurePosixPath(found).with_name(part)))
  except Exception as error:
    for kind, why in {  # The first that it is one of.
      'GatedRepoError': ' is gated; accept its terms on the hub and log in (hf '
      'auth login, or the variable HF_TOKEN).',
      'RevisionNotFoundError': f': {name.repository} has no revision '
      f'{name.revision}; check it.',
      'RepositoryNotFoundError': f': there is no {name.repository} on the hub, '
      'or you may not see it; check the name, or log in (hf auth login).',
      'LocalEntryNotFoundError': _OFFLINE,
      'EntryNotFoundError': f': {name.repository} has no file '
      f'{name.path or "that fits"}; check the name.',
    }.items():
      if isinstance(error, getattr(errors, kind)):
        raise UserError(f'{text}{why}') from error
    offline = isinstance(error, errors.OfflineModeIsEnabled | OSError)
    if offline or _is_network(error):
      raise UserError(f'{text}{_OFFLINE}') from error
    raise
  return path


def _is_network(error: Any) -> bool:
  """Whether the library's client (httpx, requests) found no server."""
  names = {kind.__module__.partition('.')[0] for kind in type(error).__mro__}
  clients = {'httpx', 'httpcore', 'requests', 'urllib3'}
  return bool({name.rstrip('2') for name in names} & clients)


def _checkpoint(listed: list[str], folder: str, text: object) -> str:
  """The one checkpoint of a folder of a repository."""
  inside = [
    file
    for file in listed
    if str(PurePosixPath(file).parent) == (folder.strip('/') or '.')
  ]
  for kind in _KINDS:
    found = [file for file in inside if file.endswith(kind)]
    if len(found) == 1:
      return found[0]
    if found:
      break
  what = ', '.join(sorted(found or listed)[:5]) or 'nothing'
  raise UserError(f'{text} holds {what}; name the one file to read.')

"""The web server: what pages ask for."""

import asyncio
import dataclasses
import errno
import functools
import json
import re
import socket
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import (
  FileResponse,
  JSONResponse,
  RedirectResponse,
  Response,
)
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from unitemp_jax import files
from unitemp_jax.data.tokenizer import Tokenizer
from unitemp_jax.errors import UserError
from unitemp_jax.generate.workflows import Model
from unitemp_jax.sampling import model_folder
from unitemp_jax.studio import estimate, guard
from unitemp_jax.studio.project import Project
from unitemp_jax.studio.timeline import Timeline
from unitemp_jax.studio.worker import Worker
from unitemp_jax.video import read, write

PAGE = Path(__file__).parent / 'page'
_MOST_JSON = 2**20  # bytes
_THREADS = 4  # for what reads files and plans
_UPLOADS = 4  # at once, since they fill the disk; others wait
_MOST_ASKED = 256  # connections
_FILES = {'strip': '.strip.png', 'poster': '.png', 'mp4': '.mp4'}
_MADE = {'gif': '.gif', 'webm': '.webm', 'last': '.png'}  # when asked for
_SENTENCES = {
  404: 'that is not there any more; reload the page.',
  408: 'the file came no further; send it again.',
  413: 'that is too large.',
  500: 'a fault of the studio; its terminal says more.',
}


class Studio:
  """All projects of a folder, and the worker."""

  def __init__(self, out: Path, home: Path, upload_limit: int = 2**28):
    """Opens the folder and starts nothing.

    Args:
      out: folder of the projects.
      home: folder of the model.
      upload_limit: bytes of a picture or clip.

    Raises:
      UserError: there is no such model.
    """
    self.out, self.home = out.resolve(), home.resolve()
    tokenizer = Tokenizer.from_file(self.home / 'tokenizer.json')
    self.model = Model(model_folder.read_card(self.home), tokenizer)
    self.upload_limit = upload_limit
    self.worker = Worker(self.home, self.listed, self.changed)
    self.revision = time.time_ns() // 1000  # No earlier server had it.
    self.threads = asyncio.Semaphore(_THREADS)
    self.uploads = asyncio.Semaphore(_UPLOADS)
    self._open = functools.cache(
      lambda folder: Project(folder, self.home, self.model)
    )
    files.sweep(self.out)  # uploads to a program that was killed
    if not self.listed():
      self.new_project('first')

  def listed(self) -> list[Project]:
    """All projects, by name."""
    folders = sorted(p for p in self.out.glob('[!.]*') if p.is_dir())
    return [self._open(folder) for folder in folders]

  def new_project(self, name: str) -> str:
    """Makes a project, or finds it; returns its name."""
    name = re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')[:40]
    if not name:
      raise UserError('a project needs a name of letters or digits.')
    (self.out / name).mkdir(parents=True, exist_ok=True)
    self.changed()
    return name

  def changed(self) -> None:
    """Lets every page ask for what is new."""
    self.revision += 1

  def state(self, project: Project) -> dict[str, Any]:
    """Everything that a page shows of a project."""
    card, run = self.model.card, self.worker.run_now
    return {
      'revision': self.revision,
      'project': project.name,
      'projects': [one.name for one in self.listed()],
      'upload_limit': self.upload_limit,
      'fps': card.fps,
      'block': 4 * card.block,
      'timeline': project.timeline.record(),
      'steps': project.steps(),
      'given': {k: dataclasses.asdict(g) for k, g in project.given.items()},
      'versions': [project.about(v) for v in project.versions().values()],
      'run': run and run.about(),
    }


def make_app(studio: Studio, host: str, token: str | None) -> Starlette:
  """The application of a studio that listens on `host`."""
  project = '/api/{project}'
  version = project + '/versions/{version}'

  def route(path: str, function: Callable, method: str = 'GET') -> Route:
    answer = functools.partial(_answer, studio, function)
    most = studio.upload_limit if function is _give else _MOST_JSON
    return Route(path, answer, methods=[method], max_body_size=most)

  return Starlette(
    routes=[
      route('/', _page),
      Mount('/page', StaticFiles(directory=PAGE)),
      route('/api/projects', _new_project, 'POST'),
      route(project + '/state', _state),
      route(project + '/given/{source}', _strip),
      route(project + '/shown/{version}/{number:int}', _shown),
      route(version + '/{kind}', _file),
      route(project + '/given', _give, 'POST'),
      route(project + '/storyboard', _open_storyboard, 'POST'),
      route(project + '/{action}', _act, 'POST'),
      route(version + '/{action}', _control, 'POST'),
    ],
    middleware=[Middleware(guard.Guard, host=host, token=token)],
    exception_handlers={
      HTTPException: lambda _, error: _problem(error.status_code),
      TimeoutError: lambda *_: _problem(408),
      OSError: lambda _, error: _problem(507, f'{error}; make room.'),
      UserError: lambda _, error: _problem(422, str(error)),
      Exception: lambda *_: _problem(500),
    },
  )


def _problem(status: int, sentence: str = '') -> Response:
  said = sentence or _SENTENCES.get(status, _SENTENCES[404])
  return JSONResponse({'error': said}, status)


async def _answer(
  studio: Studio, function: Callable, request: Request
) -> Response:
  """What a function makes of what the address names and of the body."""
  if function is _give:
    made = await _give(studio, request)
  else:
    sent = await request.body()
    async with studio.threads:
      named = await run_in_threadpool(_named, studio, request)
      named |= {'query': request.query_params, 'sent': sent}
      made = await run_in_threadpool(function, studio, **named)
  return made if isinstance(made, Response) else JSONResponse(made)


def _named(studio: Studio, request: Request) -> dict[str, Any]:
  """What the address names, as what it is the name of."""
  found = dict(request.path_params)
  if 'project' in found:
    projects = {project.name: project for project in studio.listed()}
    found['project'] = project = _in(projects, found['project'])
    if 'version' in found:
      found['version'] = _in(project.versions(), found['version'])
  return found


def _in(mapping: Mapping[str, Any], name: str) -> Any:
  if name not in mapping:
    raise HTTPException(404)
  return mapping[name]


def _json(sent: bytes) -> Any:
  try:
    return json.loads(sent)
  except (ValueError, RecursionError):
    raise UserError('the page sent no JSON; reload it.') from None


def _page(studio, query, **_):
  """The page, with a project that is there."""
  names = [project.name for project in studio.listed()] or ['first']
  if query.get('project') not in names:
    return RedirectResponse(f'/?project={names[0]}', 303)
  return FileResponse(PAGE / 'index.html')


def _new_project(studio, sent, **_):
  return {'project': studio.new_project(str(_json(sent))[:100])}


def _state(studio, project, query, **_):
  """The state, unless the page has seen it."""
  seen = query.get('seen') == str(studio.revision)
  return {} if seen else studio.state(project)


def _act(studio, project, action, query, sent):
  """What is done with a timeline; the last part of the address says what."""
  value, made = _json(sent), {}
  if action in ('undo', 'redo'):
    ways = ('past', 'future') if action == 'undo' else ('future', 'past')
    made = {'timeline': project.undo(*ways).record()}
  elif action == 'plan':
    return estimate.plan(project, Timeline.read(value))
  elif action == 'save':
    return {'text': project.storyboard(Timeline.read(value))}
  elif action == 'timeline':
    project.keep_timeline(Timeline.read(value), 'same' not in query)
  elif action == 'generate':
    made = {'version': project.queue(Timeline.read(value))}
    studio.worker.wake.set()
  else:
    raise HTTPException(404)
  studio.changed()
  return made


def _control(studio, project, version, action, **_):
  if action == 'python':
    call, decode = project.remade(version)
    return {'text': call.script(str(studio.home), decode)}
  acts = {'cancel': studio.worker.cancel, 'resume': studio.worker.resume}
  _in(acts, action)(project, version.name)
  return {}


async def _give(studio: Studio, request: Request) -> dict[str, str]:
  named = await run_in_threadpool(_named, studio, request)
  name = request.query_params.get('name', '')
  async with studio.uploads:
    with files.scratch(studio.out) as at:
      path = at / 'file'
      with path.open('wb') as file:
        async for part in request.stream():
          file.write(part)
      give = named['project'].give
      source = await run_in_threadpool(give, path, name)
  studio.changed()
  return {'source': source}


def _open_storyboard(studio, project, sent, **_):
  return {'timeline': project.open_storyboard(sent).record()}


def _strip(studio, project, source, **_):
  _in(project.given, source)
  return FileResponse(project.strip(source))


def _shown(studio, project, version, number, **_):
  run = studio.worker.run_now
  if not run or (project.name, version.name) != (run.project, run.version):
    raise HTTPException(404)
  *_, image = _in(dict(enumerate(run.shown)), number)
  kept = {'cache-control': 'private, max-age=600'}
  return Response(image, 200, kept, media_type='image/*')


def _file(studio, project, version, kind, query, **_):
  """A file of a version, or one that is made of its frames."""
  ending = _in(_FILES | _MADE, kind)
  name = re.sub(r'[^\w-]+', '-', f'{project.name}-{version.name}')
  about = {'content-disposition': f'attachment; filename="{name}{ending}"'}
  headers = about if 'save' in query else {}
  path = version.clip.with_suffix(ending)
  if kind in _MADE:
    path = version.frames_file
  elif kind == 'mp4' and not path.is_file():
    path = version.clip.with_suffix('.partial.mp4')
  if not path.is_file():
    raise HTTPException(404)
  if kind in _FILES:
    return FileResponse(path, headers=headers)
  fps = project.card.fps
  frames = read.read_once(path, fps)
  with tempfile.TemporaryDirectory() as scratch:
    made = Path(scratch) / f'made{ending}'
    if kind == 'gif':
      write.write_gif(made, frames, fps)
    elif kind == 'webm':
      write.write_video(made, frames, fps, kind='webm')
    else:
      write.write_image(made, frames[-1])
    return Response(made.read_bytes(), headers=headers)


def listen(host: str, port: int) -> socket.socket:
  """A socket that listens; UserError if the address is none for that."""
  try:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    family = min(family for family, *_ in found)  # IPv4 of both
    return socket.create_server((host, port), family=family, backlog=2048)
  except (OSError, UnicodeError) as error:
    taken = getattr(error, 'errno', None) in (errno.EADDRINUSE, errno.EACCES)
    why = str(getattr(error, 'strerror', None) or error).partition(' (')[0]
    raise UserError(
      f'{host}:{port} cannot be listened on ({why}); choose another '
      f'{"--port" if taken else "--host"}.'
    ) from error


def serve(
  studio: Studio, listens: socket.socket, host: str, token: str | None
) -> None:
  """Generates and answers on a socket until the process is interrupted."""
  studio.worker.start()
  config = uvicorn.Config(
    make_app(studio, host, token),
    log_level='warning',
    limit_concurrency=_MOST_ASKED,
    timeout_graceful_shutdown=1,
    server_header=False,
    http=guard.Patient,
    ws='none',
  )
  uvicorn.Server(config).run([listens])

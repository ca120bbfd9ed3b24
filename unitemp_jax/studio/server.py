"""The web server: what pages ask for, and the stream of what changes."""

import asyncio
import contextlib
import json
import logging
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent import futures
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import (
  FileResponse,
  JSONResponse,
  Response,
  StreamingResponse,
)
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from unitemp_jax.data.tokenizer import Tokenizer
from unitemp_jax.errors import UserError
from unitemp_jax.sampling import model_folder
from unitemp_jax.studio import estimate, guard
from unitemp_jax.studio import project as projects
from unitemp_jax.studio.project import Project
from unitemp_jax.studio.timeline import Timeline
from unitemp_jax.studio.worker import Worker
from unitemp_jax.video import write

PAGE = Path(__file__).parent / 'page'
_MOST_JSON = 2**20  # bytes
_STREAMS = 64  # pages that are told of changes at once
_WAITING = 64  # requests that wait for a thread
_UPLOADS = 4  # at once, since they fill the disk; others wait
_BEAT = 15.0  # seconds between signs of life
_ENDINGS = {
  'strip': '.strip.png',
  'poster': '.png',
  'mp4': '.mp4',
  'mkv': '.mkv',
}


class Studio:
  """All projects of a folder, and the worker.

  Attributes:
    upload_limit: bytes of a picture or clip.
    uploads: lets few of them come at once.
    told: the pages that are told of changes.
  """

  def __init__(
    self,
    out: Path,
    model: Path,
    jobs: projects.Jobs,
    script: projects.Script,
    upload_limit: int = 2**28,
  ):
    """Opens the folder and starts nothing.

    Args:
      out: folder of the projects.
      model: folder of the model.
      jobs: words of `unitemp generate` to the clips they ask for.
      script: the same to the Python that makes their frames.
      upload_limit: bytes of a picture or clip.

    Raises:
      UserError: there is no such model.
    """
    self.out, self.model = out.resolve(), model.resolve()
    self._commands = jobs, script
    self.card = model_folder.read_card(self.model)
    Tokenizer.from_file(self.model / 'tokenizer.json')
    self.upload_limit = upload_limit
    self.worker = Worker(self.model, self.listed, self.changed)
    self.revision = 0
    self.told: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()
    self._opened: dict[Path, Project] = {}
    self._waiting = 0
    self.uploads = asyncio.Semaphore(_UPLOADS)
    self._pool = futures.ThreadPoolExecutor(3, 'studio')
    for left in self.out.glob('.upload-*'):  # of a program that was killed
      shutil.rmtree(left, ignore_errors=True)
    if not self.listed():
      self.new_project('first')

  def listed(self) -> list[Project]:
    """All projects, by name."""
    folders = sorted(p for p in self.out.glob('[!.]*') if p.is_dir())
    return [self._open(folder) for folder in folders]

  def _open(self, folder: Path) -> Project:
    if folder not in self._opened:
      made = Project(folder, self.model, self.card, *self._commands)
      self._opened.setdefault(folder, made)
    return self._opened[folder]

  def new_project(self, name: str) -> str:
    """Makes a project, or finds it; returns its name."""
    name = re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')[:40]
    if not name:
      raise UserError('a project needs a name of letters or digits.')
    (self.out / name).mkdir(parents=True, exist_ok=True)
    return name

  def changed(self) -> None:
    """Tells every page that there is something new; from any thread."""
    self.revision += 1
    for loop, event in list(self.told):
      with contextlib.suppress(RuntimeError):  # The loop has ended.
        loop.call_soon_threadsafe(event.set)

  async def changes(self) -> AsyncIterator[str]:
    """The stream of events: a revision whenever there is a new one."""
    mine = (asyncio.get_running_loop(), asyncio.Event())
    self.told.add(mine)
    try:
      yield 'retry: 1000\n\n'
      while True:
        yield f'data: {self.revision}\n\n'
        with contextlib.suppress(TimeoutError):
          await asyncio.wait_for(mine[1].wait(), _BEAT)
        mine[1].clear()
    finally:
      self.told.discard(mine)

  async def call(self, function: Callable, *arguments: Any) -> Any:
    """Runs what reads files or plans in a thread, few at a time."""
    if self._waiting >= _WAITING:
      raise HTTPException(503)
    loop = asyncio.get_running_loop()
    self._waiting += 1
    try:
      return await loop.run_in_executor(self._pool, function, *arguments)
    finally:
      self._waiting -= 1

  def state(self, project: Project) -> dict[str, Any]:
    """Everything that a page shows of a project."""
    card, run = self.card, self.worker.run_now
    return {
      'project': project.name,
      'projects': [one.name for one in self.listed()],
      'upload_limit': self.upload_limit,
      'model': {
        'name': self.model.name,
        'fps': card.fps,
        'frames': card.frames,
        'height': card.height,
        'width': card.width,
        'block': 4 * card.block,
      },
      'timeline': project.timeline.record(),
      'steps': project.steps(),
      'given': project.given,
      'versions': [project.about(v) for v in project.versions().values()],
      'run': run
      and {
        'project': run.project,
        'version': run.version,
        'said': run.said,
        'shown': [[s.first, s.count, s.refines] for s in run.shown],
      },
    }

  def plan(self, project: Project, line: Timeline) -> dict[str, Any]:
    """The plan of a timeline, its time and memory; or what does not fit."""
    with tempfile.TemporaryDirectory() as scratch:
      try:
        job, _ = project.job(line, project.folder, Path(scratch))
      except UserError as error:
        return {'error': projects.without_folders(str(error))}
    found = estimate.picture(job, self.card)
    made = [project.about(v) for v in project.versions().values()]
    blocks = sum(not given for *_, given in found['blocks'])
    return {**found, 'seconds': estimate.seconds(blocks, made)}

  def download(self, version: projects.Version, kind: str) -> tuple[Path, bool]:
    """The file of a kind, and whether it was made for this download."""
    clip = version.clip
    if kind in _ENDINGS:
      path = clip.with_suffix(_ENDINGS[kind])
      if kind == 'mp4' and not path.is_file():
        path = clip.with_suffix('.partial.mp4')
      return path, False
    frames = projects.frames_of(version.frames_file, self.card.fps)
    ending = {'last': '.png'}.get(kind, f'.{kind}')
    with tempfile.NamedTemporaryFile(suffix=ending, delete=False) as file:
      path = Path(file.name)
    if kind == 'gif':
      write.write_gif(path, frames, self.card.fps)
    elif kind == 'webm':
      write.write_video(path, frames, self.card.fps, kind='webm')
    else:
      write.write_image(path, frames[-1])
    return path, True


def make_app(studio: Studio, host: str, token: str | None) -> Starlette:
  """The application of a studio that listens on `host`."""
  routes = [
    Route('/', lambda _: FileResponse(PAGE / 'index.html')),
    Route('/api/events', _events),
    Route('/api/projects', _projects, methods=['GET', 'POST']),
    Route('/api/{project}/state', _state),
    Route('/api/{project}/given', _give, methods=['POST']),
    Route('/api/{project}/given/{source}', _given_strip),
    Route('/api/{project}/storyboard', _open_storyboard, methods=['POST']),
    Route('/api/{project}/shown/{version}/{number:int}', _shown),
    Route('/api/{project}/versions/{version}/{kind}', _file),
    Route(
      '/api/{project}/versions/{version}/{action}', _control, methods=['POST']
    ),
    Route('/api/{project}/{action}', _act, methods=['POST']),
    Mount('/page', StaticFiles(directory=PAGE)),
  ]
  guarding = Middleware(guard.Guard, host=host, token=token)
  app = Starlette(
    routes=routes,
    middleware=[guarding],
    exception_handlers={
      guard.TooLarge: _answer(413),
      UserError: _answer(422),
      HTTPException: _missing,
      Exception: _answer(500, 'a fault of the studio; its terminal says more.'),
    },
  )
  app.state.studio = studio
  return app


def _answer(status: int, sentence: str = ''):
  async def answer(_: Request, error: Exception) -> Response:
    if status == 500:
      logging.getLogger('unitemp').exception('fault', exc_info=error)
    said = sentence or projects.without_folders(str(error))
    return JSONResponse({'error': said}, status)

  return answer


async def _missing(_: Request, error: Exception) -> Response:
  status = getattr(error, 'status_code', 404)
  sentence = 'that is not there any more; reload the page.'
  if status == 503:
    sentence = 'too much is asked at once; try again.'
  return JSONResponse({'error': sentence}, status)


def _found(mapping: Mapping[Any, Any], key: Any) -> Any:
  if key not in mapping:
    raise HTTPException(404)
  return mapping[key]


def _studio(request: Request) -> Studio:
  return request.app.state.studio


def _project(request: Request) -> Project:
  name = request.path_params['project']
  return _found({one.name: one for one in _studio(request).listed()}, name)


def _version(request: Request) -> projects.Version:
  return _found(_project(request).versions(), request.path_params['version'])


async def _json(request: Request) -> Any:
  parts = [part async for part in guard.body(request, _MOST_JSON)]
  try:
    return json.loads(b''.join(parts))
  except (ValueError, RecursionError):
    raise UserError('the page sent no JSON; reload it.') from None


async def _events(request: Request) -> Response:
  studio = _studio(request)
  if len(studio.told) >= _STREAMS:
    raise HTTPException(503)
  return StreamingResponse(studio.changes(), media_type='text/event-stream')


async def _projects(request: Request) -> Response:
  studio = _studio(request)
  if request.method == 'POST':
    made = studio.new_project(str(await _json(request))[:100])
    studio.changed()
    return JSONResponse({'project': made})
  return JSONResponse({'projects': [one.name for one in studio.listed()]})


async def _state(request: Request) -> Response:
  studio = _studio(request)
  return JSONResponse(await studio.call(studio.state, _project(request)))


async def _act(request: Request) -> Response:
  """What is done with a timeline; the last part of the address says what."""
  studio, project = _studio(request), _project(request)
  action, sent = request.path_params['action'], await _json(request)
  if action in ('undo', 'redo'):
    ways = ('past', 'future') if action == 'undo' else ('future', 'past')
    line = await studio.call(project.undo, *ways)
    studio.changed()
    return JSONResponse({'timeline': line.record()})
  line = Timeline.read(sent)
  if action == 'plan':
    return JSONResponse(await studio.call(studio.plan, project, line))
  if action == 'timeline':
    step = 'same' not in request.query_params
    await studio.call(project.keep_timeline, line, step)
    studio.changed()
    return JSONResponse({})
  if action == 'generate':
    name = await studio.call(project.queue, line)
    studio.worker.wake()
    studio.changed()
    return JSONResponse({'version': name})
  if action == 'save':
    return JSONResponse({'text': await studio.call(project.storyboard, line)})
  raise HTTPException(404)


async def _control(request: Request) -> Response:
  studio, project = _studio(request), _project(request)
  version, action = _version(request), request.path_params['action']
  if action == 'python':
    words = _found(version.record, 'words')
    return JSONResponse({'text': await studio.call(project.script, words)})
  acts = {'cancel': studio.worker.cancel, 'resume': studio.worker.resume}
  act = _found(acts, action)
  await studio.call(act, project, version.name)
  return JSONResponse({})


async def _give(request: Request) -> Response:
  studio, project = _studio(request), _project(request)
  name = request.query_params.get('name', '')
  async with studio.uploads:
    with tempfile.TemporaryDirectory(dir=studio.out, prefix='.upload-') as at:
      path = Path(at) / 'file'
      with path.open('wb') as file:
        async for part in guard.body(request, studio.upload_limit):
          file.write(part)
      source = await studio.call(project.give, path, name)
  studio.changed()
  return JSONResponse({'source': source})


async def _open_storyboard(request: Request) -> Response:
  studio, project = _studio(request), _project(request)
  parts = [part async for part in guard.body(request, _MOST_JSON)]
  line = await studio.call(project.open_storyboard, b''.join(parts))
  return JSONResponse({'timeline': line.record()})


async def _given_strip(request: Request) -> Response:
  project, source = _project(request), request.path_params['source']
  _found(project.given, source)
  return _sent(project.strip(source), request)


async def _shown(request: Request) -> Response:
  run, asked = _studio(request).worker.run_now, request.path_params
  if not run or (asked['project'], asked['version']) != (
    run.project,
    run.version,
  ):
    raise HTTPException(404)
  image = _found(dict(enumerate(run.shown)), asked['number']).image
  kind = 'image/png' if image.startswith(b'\x89PNG') else 'image/jpeg'
  return Response(image, media_type=kind)


async def _file(request: Request) -> Response:
  studio, version = _studio(request), _version(request)
  kind = request.path_params['kind']
  if kind not in (*_ENDINGS, 'gif', 'webm', 'last'):
    raise HTTPException(404)
  path, made = await studio.call(studio.download, version, kind)
  return _sent(path, request, version.name, made)


def _sent(
  path: Path, request: Request, name: str = '', made: bool = False
) -> Response:
  if not path.is_file():
    raise HTTPException(404)
  filename = None
  if 'save' in request.query_params:
    name = re.sub(r'[^\w-]+', '-', f'{_project(request).name}-{name}')
    filename = f'{name}{path.suffix}'
  after = BackgroundTask(path.unlink) if made else None
  return FileResponse(path, background=after, filename=filename)


def serve(studio: Studio, host: str, port: int, token: str | None) -> None:
  """Generates and answers until the process is interrupted.

  Raises:
    UserError: the address cannot be listened on.
  """
  studio.worker.start()
  config = uvicorn.Config(
    make_app(studio, host, token),
    host,
    port,
    log_level='warning',
    limit_concurrency=512,
    timeout_graceful_shutdown=1,
    server_header=False,
    ws='none',
  )
  try:
    uvicorn.Server(config).run()
  except SystemExit:
    raise UserError(
      f'{host}:{port} cannot be listened on; choose another --port.'
    ) from None

"""A call of a workflow: as a request, as a command, and as Python."""

from typing import Any, NamedTuple

from unitemp_jax.generate import storyboard, workflows
from unitemp_jax.generate.request import Request

# Workflow -> its option of `unitemp generate`, and the argument that it holds.
_OPTIONS = {
  'image_to_video': ('--image', 'image'),
  'extend': ('--extend', 'clip'),
  'regenerate': ('--regenerate', 'clip'),
  'long_video': ('--long', 'length'),
  'storyboard': ('--storyboard', 'path'),
}
_JOINT = 'video = model.video(request)  # uint8 [T, H, W, 3]'
_BY_BLOCK = """
shape = (request.num_frames, request.height, request.width, 3)
video = np.zeros(shape, np.uint8)
for piece in model.run(request, mode={!r}):
  video[piece.first : piece.first + len(piece.frames)] = piece.frames
""".strip()


class Call(NamedTuple):
  """What `generate.workflows` is asked for, or a storyboard."""

  workflow: str  # name of the function, or 'storyboard'
  arguments: dict[str, Any]  # plain values; `prompt` by frame

  def request(self, model: workflows.Model) -> Request:
    """What it makes; UserError if it cannot."""
    if self.workflow == 'storyboard':
      board = storyboard.read(self.arguments['path'])
      return storyboard.to_request(board, model)
    return getattr(workflows, self.workflow)(model, **self.arguments)

  def words(self) -> list[str]:
    """The same as options of `unitemp generate`."""
    rest = dict(self.arguments)
    option, value = _OPTIONS.get(self.workflow, ('', ''))
    found = [f'{option}={rest.pop(value)}'] if option else []
    if self.workflow == 'loop':
      found.append('--loop')
    for at, path in rest.pop('keyframes', {}).items():
      found.append(f'--keyframe={at}:{path}')
    for at, text in rest.pop('prompt', {}).items():
      found.append(f'--prompt_at={at}:{text}' if at else f'--prompt={text}')
    if 'span' in rest:
      rest['span'] = ':'.join(map(str, rest['span']))
    return found + [f'--{name}={value}' for name, value in rest.items()]

  def script(self, model: str, decode: str) -> str:
    """The same in Python, with a model's folder and how frames are decoded."""
    imports, run = 'import unitemp_jax', _JOINT
    if self.workflow == 'storyboard':
      imports += '\nfrom unitemp_jax.generate import storyboard'
      board = f'storyboard.read({self.arguments["path"]!r})'
      request = f'storyboard.to_request({board}, model)'
    else:
      told = [
        f'  {name}={value!r},\n' for name, value in self.arguments.items()
      ]
      called = f'unitemp_jax.workflows.{self.workflow}'
      request = f'{called}(\n  model,\n{"".join(told)})'
    if decode != 'joint':
      imports = f'import numpy as np\n{imports}'
      run = _BY_BLOCK.format(decode)
    load = f'model = unitemp_jax.load({model!r})'
    return f'{imports}\n\n{load}\nrequest = {request}\n{run}\n'

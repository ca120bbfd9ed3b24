"""Who may talk to the server: Host, Origin, token, and sizes of bodies."""

import asyncio
import ipaddress
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unitemp_jax.errors import UserError

COOKIE, TOKEN_FILE = 'unitemp_studio', '.studio.token'
_LOOPBACK = ('localhost', '127.0.0.1', '::1')
_SAFE = ('GET', 'HEAD')
_PATIENCE = 30.0  # seconds without a byte of a body
_HEADERS = {
  'content-security-policy': (
    "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data: blob:; media-src 'self' blob:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
  ),
  'cross-origin-resource-policy': 'same-origin',
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
}


def is_loopback(host: str) -> bool:
  """Whether only this machine reaches an address."""
  return host in _LOOPBACK


def token_of(out: Path) -> str:
  """The token of a folder, made once, so that a restart shuts nobody out."""
  path = out / TOKEN_FILE
  if not path.is_file():
    path.touch(0o600)
    path.write_text(secrets.token_urlsafe(24))
  return path.read_text().strip()


class Guard:
  """Refuses requests that no page of this server sends.

  Another site's page can reach a server on this machine by its address or by a
  name that it lets point here; its Origin, or its Host, gives it away.
  """

  def __init__(self, app: ASGIApp, host: str, token: str | None):
    """Guards an application that listens on `host`; None asks for no token."""
    self._app, self._host, self._token = app, host, token

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    """Answers itself, or passes the request on."""
    if scope['type'] == 'websocket':
      await send({'type': 'websocket.close', 'code': 1008})
      return
    if scope['type'] != 'http':
      await self._app(scope, receive, send)
      return

    async def sealed(message: Message) -> None:
      if message['type'] == 'http.response.start':
        headers = MutableHeaders(scope=message)
        for name, value in _HEADERS.items():
          headers[name] = value
        headers.setdefault('cache-control', 'no-store')
      await send(message)

    request = Request(scope, receive)
    answer = self._refusal(request) or self._login(request)
    await (answer or self._app)(scope, receive, sealed)

  def _refusal(self, request: Request) -> Response | None:
    hosts = request.headers.getlist('host')
    if len(hosts) != 1 or not self._is_own(hosts[0]):
      return _refuse(403, 'this server has another name: the Host is foreign.')
    origin = request.headers.get('origin')
    if origin is not None and origin.partition('://')[2] != hosts[0]:
      return _refuse(403, 'the request comes from another site.')
    site = request.headers.get('sec-fetch-site', 'none')
    if request.method not in _SAFE and site not in ('none', 'same-origin'):
      return _refuse(403, 'the request comes from another site.')
    return None

  def _is_own(self, host: str) -> bool:
    try:
      name = urlsplit(f'//{host}').hostname or ''
    except ValueError:
      return False
    if is_loopback(name) or name == self._host:
      return True
    if is_loopback(self._host):
      return False
    try:
      ipaddress.ip_address(name)  # no name, so nobody lets it point elsewhere
    except ValueError:
      return False
    return True

  def _login(self, request: Request) -> Response | None:
    if self._token is None:
      return None
    given = request.query_params.get('token', '')
    if _equal(given, self._token) and request.url.path == '/':
      answer = RedirectResponse('/', 303)
      answer.set_cookie(COOKIE, self._token, httponly=True, samesite='strict')
      return answer
    if _equal(request.cookies.get(COOKIE, ''), self._token):
      return None
    return _refuse(401, 'open the address with the token, as it was printed.')


def _equal(one: str, other: str) -> bool:
  return secrets.compare_digest(one.encode(), other.encode())


def _refuse(status: int, sentence: str) -> Response:
  return JSONResponse({'error': sentence}, status)


class TooLarge(UserError):
  """A body has more bytes than the server takes."""


async def body(request: Request, most: int) -> AsyncIterator[bytes]:
  """Yields a body piece by piece; TooLarge beyond `most` bytes.

  Raises:
    UserError: it comes no further.
  """
  said = request.headers.get('content-length', '0')
  left = most - int(said) if said.isdecimal() else -1
  if left >= 0:
    left = most
    stream = aiter(request.stream())
    while True:
      try:
        part = await asyncio.wait_for(anext(stream), _PATIENCE)
      except StopAsyncIteration:
        break
      except TimeoutError:
        raise UserError('the file came no further; send it again.') from None
      left -= len(part)
      if left < 0:
        break
      yield part
  if left < 0:
    raise TooLarge(f'that is too large: use at most {most / 2**20:.0f} MiB.')

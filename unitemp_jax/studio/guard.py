"""Who may talk to the server: Host, Origin, token, and patience."""

import asyncio
import ipaddress
import os
import re
import secrets
from pathlib import Path
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from unitemp_jax import files
from unitemp_jax.errors import UserError

COOKIE, TOKEN_FILE = 'unitemp_studio', '.studio.token'
_PATIENCE = 30.0  # seconds for the head, and without a byte of a body
_HEADERS = {
  'cache-control': 'no-store',
  'content-security-policy': (
    "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; media-src 'self'; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
  ),
  'cross-origin-resource-policy': 'same-origin',
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
}


def token_of(out: Path) -> str:
  """The token of a folder, made once, so that a restart shuts nobody out.

  UserError if the file holds another text than a token.
  """
  path = out / TOKEN_FILE
  token = files.read_text(path).strip() if os.path.lexists(path) else ''
  if not token:
    token = secrets.token_urlsafe(24)
    with files.writing(path) as temporary:
      temporary.chmod(0o600)
      temporary.write_text(token)
  elif not re.fullmatch(r'[\w-]{32}', token, re.ASCII):
    raise UserError(
      f'{path} is no token of 32 letters; delete it for a new one.'
    )
  return token


class Patient(H11Protocol):
  """HTTP connections that are closed if no request comes."""

  def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
    """Waits for the head of the first one, and no longer."""
    super().connection_made(transport)
    self.loop.call_later(_PATIENCE, self._give_up)

  def _give_up(self) -> None:
    if self.cycle is None and not self.transport.is_closing():
      self.transport.close()


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

    async def patient() -> Message:
      return await asyncio.wait_for(receive(), _PATIENCE)

    async def sealed(message: Message) -> None:
      if message['type'] == 'http.response.start':
        headers = MutableHeaders(scope=message)
        for name, value in _HEADERS.items():
          headers.setdefault(name, value)
      await send(message)

    app: ASGIApp = self._app
    if scope['type'] == 'http':
      request = Request(scope)
      app = self._refusal(request) or self._login(request) or app
      await app(scope, patient, sealed)
    elif scope['type'] == 'lifespan':
      await app(scope, receive, send)

  def _refusal(self, request: Request) -> Response | None:
    hosts = request.headers.getlist('host')
    origin = request.headers.get('origin')
    if len(hosts) != 1 or not self._is_own(hosts[0]):
      return _refuse(403, 'this server has another name: the Host is foreign.')
    if origin is not None and origin.partition('://')[2] != hosts[0]:
      return _refuse(403, 'the request comes from another site.')
    return None

  def _is_own(self, host: str) -> bool:
    """Whether it is this server's name, or an address, which nobody moves."""
    try:
      name = urlsplit(f'//{host}').hostname or ''
      return name in ('localhost', self._host) or bool(
        ipaddress.ip_address(name)
      )
    except ValueError:
      return False

  def _login(self, request: Request) -> Response | None:
    if self._token is None:
      return None
    if _equal(request.cookies.get(COOKIE, ''), self._token):
      return None
    given = request.query_params.get('token', '')
    if request.url.path == '/' and _equal(given, self._token):
      answer = RedirectResponse('/', 303)
      answer.set_cookie(COOKIE, self._token, httponly=True, samesite='strict')
      return answer
    return _refuse(401, 'open the address with the token, as it was printed.')


def _equal(one: str, other: str) -> bool:
  return one != '' and secrets.compare_digest(one.encode(), other.encode())


def _refuse(status: int, sentence: str) -> Response:
  return JSONResponse({'error': sentence}, status)

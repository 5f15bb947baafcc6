"""What is asked and told about joining, certificates and membership."""

from aiohttp import web

from routemesh import wire
from routemesh.api.reply import CONTEXT, asking_node, json_reply
from routemesh.ask import joining
from routemesh.errors import UserError
from routemesh.model import Role
from routemesh.pki.shapes import Join, Renew

_BASE = f"{wire.PREFIX}/cluster"


async def _status(request: web.Request) -> web.Response:
    return json_reply(await joining.status(request.app[CONTEXT]))


async def _roots(request: web.Request) -> web.Response:
    return json_reply(await joining.roots(request.app[CONTEXT]))


async def _join(request: web.Request) -> web.Response:
    asked = wire.parse(Join, await request.read())
    return json_reply(await joining.join(request.app[CONTEXT], asked, request.remote or ""), 201)


async def _renew(request: web.Request) -> web.Response:
    """A certificate for the node that asks."""
    asked = wire.parse(Renew, await request.read())
    return json_reply(await joining.renew(request.app[CONTEXT], asking_node(request), asked.request))


async def _token(request: web.Request) -> web.Response:
    return json_reply(await joining.token(request.app[CONTEXT], _role(request), rotate=request.method == "POST"))


async def _rotate_root(request: web.Request) -> web.Response:
    return json_reply(await joining.rotate_root(request.app[CONTEXT]))


def _role(request: web.Request) -> Role:
    text = request.match_info["role"]
    try:
        return Role(text)
    except ValueError:
        raise UserError(f"{text!r} is not a role; roles are: {', '.join(Role)}") from None


ROUTES = (
    web.get(_BASE, _status),
    web.get(f"{_BASE}/roots", _roots),
    web.post(f"{_BASE}/join", _join),
    web.post(f"{_BASE}/renew", _renew),
    web.get(f"{_BASE}/tokens/{{role}}", _token),
    web.post(f"{_BASE}/tokens/{{role}}", _token),
    web.post(f"{_BASE}/root", _rotate_root),
)

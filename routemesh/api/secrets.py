"""What is asked and told about secrets; never what they hold."""

from aiohttp import web

from routemesh import pem, wire
from routemesh.api.reply import CONTEXT, json_reply
from routemesh.decide import admit
from routemesh.decide.admit.secrets import users_of
from routemesh.errors import UserError
from routemesh.model import Secret, State

_BASE = f"{wire.PREFIX}/secrets"


async def _list(request: web.Request) -> web.Response:
    state = await request.app[CONTEXT].store.snapshot()
    return json_reply([secret_info(state, secret) for secret in sorted(state.secrets.values(), key=lambda secret: secret.name)])


async def _create(request: web.Request) -> web.Response:
    context = request.app[CONTEXT]
    wanted = wire.parse(wire.SecretCreate, await request.read())
    state = await context.store.update(lambda state: admit.create_secret(state, wanted.name, wanted.data, context.now()))
    return json_reply(secret_info(state, admit.find_secret(state, wanted.name)), 201)


async def _remove(request: web.Request) -> web.Response:
    store, name = request.app[CONTEXT].store, request.match_info["name"]
    before = await store.snapshot()
    await store.update(lambda state: admit.remove_secret(state, name))
    return json_reply(secret_info(before, admit.find_secret(before, name)))


def secret_info(state: State, secret: Secret) -> wire.SecretInfo:
    """What may be told of a secret."""
    try:
        certificate: pem.Certificate | None = pem.read(secret.data)
    except UserError:
        certificate = None
    return wire.SecretInfo(
        id=secret.id,
        name=secret.name,
        created_at=secret.created_at,
        size_bytes=len(secret.data),
        services=users_of(state, secret.name),
        certificate_for=certificate.names if certificate else (),
        not_after=certificate.not_after if certificate else None,
    )


ROUTES = (web.get(_BASE, _list), web.post(_BASE, _create), web.delete(f"{_BASE}/{{name}}", _remove))

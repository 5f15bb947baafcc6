"""What people type for one value, in docker's notation, and what it means."""

import os
import re
import shlex
from collections.abc import Callable
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from routemesh.legible import storable
from routemesh.model import Protocol, Publish

Word = TypeVar("Word", bound=StrEnum)

LAST_PORT = 65535
LONGEST_S = 10 * 365 * 86400.0
_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h)")
_UNITS_BYTES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
_SIZE, _COUNT = re.compile(r"([0-9]{1,12})([kmg]?)b?"), re.compile(r"[0-9]{1,12}")
_LOG_FIELDS = {"max-size": "max_bytes", "max-file": "max_files"}
_LONG_KEYS = {
    "published": "published", "publish": "published", "target": "target", "protocol": "protocol", "mode": "mode",
}  # fmt: skip


class Parsed(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4 only
    """A parameter whose text a function turns into a value; the function raises ValueError with a sentence."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See click.ParamType."""
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as exc:
            self.fail(str(exc), param, ctx)


class OneOf(Parsed):
    """A parameter that takes one of the words of an enum."""

    def __init__(self, kind: type[Word]) -> None:
        super().__init__("|".join(kind), self._word)
        self._kind = kind

    def _word(self, text: str) -> StrEnum:
        try:
            return self._kind(text)
        except ValueError:
            raise ValueError(f"{text!r} is not one of {', '.join(self._kind)}") from None

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """See click.ParamType; click 8.2 gives it the context too."""
        return f"[{self.name}]"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """See click.ParamType."""
        return [CompletionItem(word) for word in self._kind if word.startswith(incomplete)]


class EngineName(Parsed):
    """A parameter that takes an engine's name, or what stands for the default. The registry is loaded when it is asked."""

    def __init__(self) -> None:
        super().__init__("engine", self._known)

    def _known(self, text: str) -> str:
        if text not in self._all():
            raise ValueError(f"{text!r} is not one of {', '.join(self._all())}")
        return text

    def _all(self) -> tuple[str, ...]:
        from routemesh.plan.engines import AUTO, engine_names

        return (AUTO, *engine_names())

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """See click.ParamType."""
        return f"[{'|'.join(self._all())}]"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """See click.ParamType."""
        return [CompletionItem(word) for word in self._all() if word.startswith(incomplete)]


ENGINE = EngineName()


def duration_s(text: str) -> float:
    """Seconds in a duration as Go spells it: 1m30s, 500ms, 1.5h, 0. Raises ValueError."""
    parts = _DURATION.findall(text)
    if text == "0":
        return 0.0
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text!r} is not a duration; write it as 1m30s, 10s or 500ms")
    total_s = sum(float(number) * _UNITS_S[unit] for number, unit in parts)
    if total_s > LONGEST_S:
        raise ValueError(f"{text!r} is longer than 10 years")
    return total_s


def port(text: str) -> int:
    """A port number. Raises ValueError."""
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= LAST_PORT):
        raise ValueError(f"{text!r} is not a port; use 1-{LAST_PORT}")
    return int(text)


def protocol(text: str) -> Protocol:
    """tcp or udp. Raises ValueError."""
    if text not in tuple(Protocol):
        raise ValueError(f"{text!r} is not a protocol; use {' or '.join(Protocol)}")
    return Protocol(text)


def publish(text: str) -> Publish:
    """A published port: 8080:80, 8080:80/udp or published=8080,target=80,protocol=udp. Raises ValueError."""
    return _long_publish(text) if "=" in text else _short_publish(text)


def _short_publish(text: str) -> Publish:
    ports, slash, kind = text.partition("/")
    match ports.split(":"):
        case [published, target] if published and target:
            pass
        case [target] | ["", target] if target:
            raise ValueError(f"{text!r} has a target port and no published one; write PUBLISHED:{target}")
        case [published, ""] if published:
            raise ValueError(f"{text!r} has a published port and no target; write {published}:TARGET")
        case _:
            raise ValueError(f"{text!r} is not of the form PUBLISHED:TARGET[/PROTOCOL]; every node answers on all its addresses")
    if "-" in ports:
        raise ValueError(f"{text!r}: ranges are not supported; publish the ports one by one")
    return Publish(published=port(published), target=port(target), protocol=protocol(kind) if slash else Protocol.TCP)


def _long_publish(text: str) -> Publish:
    fields: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not equals or key.strip() not in _LONG_KEYS:
            raise ValueError(f"{text!r}: {part!r} is not one of published=…, target=…, protocol=…, mode=…")
        fields[_LONG_KEYS[key.strip()]] = value.strip()
    if "target" not in fields:
        raise ValueError(f"{text!r} has no target port; add target=PORT")
    if "published" not in fields:
        raise ValueError(f"{text!r} has no published port; add published=PORT")
    if fields.get("mode", "ingress") != "ingress":
        raise ValueError(f"{text!r}: mode={fields['mode']} is not supported yet; use mode=ingress")
    return Publish(
        published=port(fields["published"]), target=port(fields["target"]), protocol=protocol(fields.get("protocol", "tcp"))
    )


def target(text: str) -> tuple[int, Protocol]:
    """What --publish-rm names, as docker: a target port, 80 or 80/udp; or a whole published port. Raises ValueError."""
    if "=" in text or ":" in text:
        whole = publish(text)
        return whole.target, whole.protocol
    number, slash, kind = text.partition("/")
    return port(number), protocol(kind) if slash else Protocol.TCP


def pair(text: str) -> tuple[str, str]:
    """KEY=VALUE, or KEY alone for an empty value. Raises ValueError."""
    key, _, value = text.partition("=")
    if not key:
        raise ValueError(f"{text!r} has no key; write KEY=VALUE")
    return key, value


def environment(text: str) -> str:
    """KEY=VALUE, or KEY for the value that it has here. Raises ValueError."""
    key, equals, _ = text.partition("=")
    if not key:
        raise ValueError(f"{text!r} has no key; write KEY=VALUE")
    if not equals and key not in os.environ:
        raise ValueError(f"{key!r} is not set here; write {key}=VALUE")
    found = text if equals else f"{key}={os.environ[key]}"
    if found != storable(found):
        raise ValueError(f"{storable(found)!r} is not UTF-8; a spec can't hold it")
    return found


def log_option(text: str) -> tuple[str, int]:
    """max-size=10m (k, m and g are powers of 1,000, as docker's) or max-file=3: a field of model.LogConfig. Raises ValueError."""
    key, _, value = text.partition("=")
    if key not in _LOG_FIELDS:
        raise ValueError(f"log option {key!r} is not supported; there are max-size=SIZE and max-file=NUMBER")
    found = _SIZE.fullmatch(value.lower()) if key == "max-size" else _COUNT.fullmatch(value)
    if found is None:
        raise ValueError(f"{text!r} is none; write it as {key}={'10m' if key == 'max-size' else '3'}")
    return _LOG_FIELDS[key], int(found[1]) * _UNITS_BYTES[found[2]] if key == "max-size" else int(found[0])


def scale(text: str) -> tuple[str, int]:
    """SERVICE=REPLICAS. Raises ValueError."""
    name, equals, number = text.rpartition("=")
    if not equals or not name:
        raise ValueError(f"{text!r} is not of the form SERVICE=REPLICAS")
    if not (number.isascii() and number.isdigit()):
        raise ValueError(f"{text!r}: {number!r} is not a number of replicas; use 0 or more")
    return name, int(number)


def lines(text: str) -> int | None:
    """A number of lines; None for `all`. Raises ValueError."""
    if text == "all":
        return None
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{text!r} is not a number of lines; use 0 or more, or all")
    return int(text)


def words(text: str) -> tuple[str, ...]:
    """A command line, split as a shell would. Raises ValueError."""
    try:
        return tuple(shlex.split(text))
    except ValueError as exc:
        raise ValueError(f"{text!r} can't be split into words: {str(exc).lower()}") from exc


def address(text: str) -> IPv4Address:
    """An IPv4 address. Raises ValueError."""
    try:
        return IPv4Address(text)
    except ValueError as exc:
        raise ValueError(f"{text!r} is not an IPv4 address") from exc


def subnet(text: str) -> IPv4Network:
    """An IPv4 network, 10.0.0.0/24. Raises ValueError."""
    try:
        return IPv4Network(text)
    except ValueError as exc:
        raise ValueError(f"{text!r} is not an IPv4 network: {exc}") from exc


def gateway_ports(text: str) -> tuple[int, int]:
    """HTTP or HTTP,HTTPS: 80,443; 0 for no TLS. Raises ValueError."""
    parts = text.split(",")
    if len(parts) > 2 or not all(part.isascii() and part.isdigit() and 1 <= int(part[:6]) <= 65535 for part in parts):
        raise ValueError(f"{text!r} is not of the form HTTP or HTTP,HTTPS with ports of 1-65535, such as 80,443")
    if len(set(map(int, parts))) != len(parts):
        raise ValueError(f"{text!r} has the same port twice; HTTP and HTTPS need a port each")
    return int(parts[0]), int(parts[1]) if len(parts) == 2 else 0


def url(text: str) -> tuple[bool, str, str]:
    """[http[s]://]HOST[/PATH]: whether it is TLS, the host, the path. Raises ValueError."""
    scheme, separator, rest = text.partition("://")
    host, slash, path = (rest if separator else text).partition("/")
    if (separator and scheme not in ("http", "https")) or not host:
        raise ValueError(f"{text!r} is not of the form [http://]HOST[/PATH] or https://HOST[/PATH]")
    return scheme == "https" and bool(separator), host, slash + path.partition("?")[0] or "/"


def header(text: str) -> tuple[str, str]:
    """NAME:VALUE, as curl has it. Raises ValueError."""
    name, separator, value = text.partition(":")
    if not separator or not name.strip():
        raise ValueError(f"{text!r} is not NAME:VALUE")
    return name.strip(), value.strip()


DURATION = Parsed("duration", duration_s)
PUBLISH = Parsed("port", publish)
TARGET = Parsed("target port", target)
ENV = Parsed("key=value", environment)
PAIR = Parsed("key=value", pair)
LOG_OPTION = Parsed("max-size=|max-file=", log_option)
SCALE = Parsed("service=replicas", scale)
LINES = Parsed("lines", lines)
WORDS = Parsed("words", words)
ADDRESS = Parsed("address", address)
SUBNET = Parsed("subnet", subnet)
GATEWAY_PORTS = Parsed("ports", gateway_ports)
URL = Parsed("url", url)
HEADER = Parsed("name:value", header)

"""nginx as the program that is asked, and as one that forwards: configurations for it."""

from collections.abc import Mapping
from pathlib import Path

_STREAM_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
"""A module of its own in Debian, package libnginx-mod-stream."""

_COMMON = """
user root;
worker_processes {workers};
pid nginx.pid;
error_log stderr crit;
events {{ worker_connections 4096; }}
"""

_ANSWER = """
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path t; proxy_temp_path t; fastcgi_temp_path t; uwsgi_temp_path t; scgi_temp_path t;
    server {{
        listen {port} backlog=4096;
        location / {{ return 200 "$hostname"; }}
    }}
}}
"""


def answering(directory: Path, port: int) -> tuple[str, ...]:
    """The command of a web server on `port` that says its host's name; one process answers."""
    return _command(directory, f"answer-{port}", _COMMON.format(workers=1) + _ANSWER.format(port=port))


def forwarding(directory: Path, ports: Mapping[int, str]) -> tuple[str, ...]:
    """The command of a TCP proxy: port → host:port; as many processes as cores."""
    servers = "".join(f"    server {{ listen {port} backlog=4096; proxy_pass {target}; }}\n" for port, target in ports.items())
    load = f"load_module {_STREAM_MODULE};\n" if _STREAM_MODULE.exists() else ""
    return _command(directory, "forward", f"{load}{_COMMON.format(workers='auto')}stream {{\n{servers}}}\n")


def _command(directory: Path, name: str, configuration: str) -> tuple[str, ...]:
    file = directory / f"{name}.conf"
    file.write_text(configuration)
    return ("nginx", "-p", str(directory), "-c", str(file), "-g", "daemon off;")

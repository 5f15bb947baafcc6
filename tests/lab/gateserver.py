"""Servers and a client for what whoami does not speak: `gateserver.py KIND PORT`, on every address of the task.

websocket   echoes messages            sse   five events, 0.1 s apart
proxy       tells what a PROXY protocol header said     tls   tells who asks, by TLS with certificate argv[3]
grpc        one call, answered by a stream of five messages; grpc-client TARGET AUTHORITY [CA] makes that call
"""

import base64
import hashlib
import socket
import socketserver
import ssl
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

STREAM = "/routemesh.Test/Stream"
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_V2_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"


def head(connection: socket.socket) -> bytes:
    """The request up to its empty line."""
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        block = connection.recv(1)
        if not block:
            raise ConnectionError
        data += block
    return data


def exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        block = connection.recv(size - len(data))
        if not block:
            raise ConnectionError
        data += block
    return data


def reply(connection: socket.socket, text: str) -> None:
    body = text.encode()
    connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


def websocket(connection: socket.socket) -> None:
    lines = head(connection).decode().split("\r\n")
    key = next(line.partition(": ")[2] for line in lines if line.lower().startswith("sec-websocket-key"))
    accept = base64.b64encode(hashlib.sha1(key.encode() + _GUID).digest())
    connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n")
    connection.sendall(b"Sec-WebSocket-Accept: %s\r\n\r\n" % accept)
    while True:
        first, length = exactly(connection, 2)
        mask, data = exactly(connection, 4), exactly(connection, length & 0x7F)
        plain = bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))
        connection.sendall(bytes([first, len(plain)]) + plain)


def sse(connection: socket.socket) -> None:
    head(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
    for number in range(5):
        connection.sendall(b"data: %d\n\n" % number)
        time.sleep(0.1)  # that is what the stream is about


def proxy(connection: socket.socket) -> None:
    if exactly(connection, 12) != _V2_SIGNATURE:
        raise ConnectionError
    _, family, *length = exactly(connection, 4)
    rest = exactly(connection, int.from_bytes(bytes(length), "big"))
    head(connection)
    reply(connection, f"v2 family={family:#x} client={socket.inet_ntoa(rest[:4])}:{int.from_bytes(rest[8:10], 'big')}\n")


def tls(connection: socket.socket) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[3])
    with context.wrap_socket(connection, server_side=True) as secure:
        head(secure)
        reply(secure, f"TLS ends in the task; peer {connection_peer(secure)}\n")


def connection_peer(connection: socket.socket) -> str:
    return str(connection.getpeername()[0])


def serve_grpc(port: int) -> None:
    import grpc

    def stream(request: bytes, _: object) -> Iterator[bytes]:
        for number in range(5):
            yield request + str(number).encode()

    class Handler(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, call: object) -> object:
            return grpc.unary_stream_rpc_method_handler(stream)

    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((Handler(),))
    server.add_insecure_port(f"0.0.0.0:{port}")
    server.start()
    server.wait_for_termination()


def call_grpc(target: str, authority: str, ca: str = "") -> None:
    import grpc

    options = [("grpc.default_authority", authority), ("grpc.ssl_target_name_override", authority)]
    if ca:
        channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(Path(ca).read_bytes()), options)
    else:
        channel = grpc.insecure_channel(target, options)
    for message in channel.unary_stream(STREAM)(b"message ", timeout=10):
        print(message.decode())


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


def main() -> None:
    kind, port = sys.argv[1:3]
    if kind == "grpc-client":
        call_grpc(*sys.argv[2:])
    elif kind == "grpc":
        serve_grpc(int(port))
    else:
        answer = {"websocket": websocket, "sse": sse, "proxy": proxy, "tls": tls}[kind]

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                try:
                    answer(self.request)
                except (OSError, ValueError):
                    self.request.close()  # a check that only connects

        Server(("", int(port)), Handler).serve_forever()


if __name__ == "__main__":
    main()

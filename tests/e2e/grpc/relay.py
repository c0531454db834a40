"""Passes connections on, and names the PING and GOAWAY frames of HTTP/2 that cross: relay.py PORT HOST TO_PORT."""

import socket
import sys
import threading

PING, GOAWAY, ACK, PREFACE = 6, 7, 1, 24


def passed_on(source, sink):
    """Everything that comes from one side, after the other side has it."""
    while received := source.recv(65536):
        sink.sendall(received)
        yield received


def watch(who, source, sink):
    waiting, skip = b"", PREFACE if who == "client" else 0
    for received in passed_on(source, sink):
        waiting += received
        if skip and len(waiting) >= skip:
            waiting, skip = waiting[skip:], 0
        while not skip and len(waiting) >= 9 + (length := int.from_bytes(waiting[:3], "big")):
            kind, flags, body = waiting[3], waiting[4], waiting[9 : 9 + length]
            waiting = waiting[9 + length :]
            if kind == PING and not flags & ACK:
                print(who, "PING", flush=True)
            if kind == GOAWAY:
                print(who, "GOAWAY", body[8:].decode(), flush=True)
    sink.shutdown(socket.SHUT_WR)


port, host, to = sys.argv[1:]
with socket.create_server(("0.0.0.0", int(port))) as listener:
    while True:
        client, server = listener.accept()[0], socket.create_connection((host, int(to)))
        for pair in (("client", client, server), ("server", server, client)):
            threading.Thread(target=watch, args=pair, daemon=True).start()

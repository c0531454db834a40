"""A program in a pod of the scene. It opens, uses and closes connections as commanded: one JSON command per line, answered with `ok`."""

import json
import socket
import struct
import sys
import threading
import time

accepted = {}  # port -> sockets
opened = {}  # name -> sockets


def keepalive(sock, idle):
    """None: off. 0: on with the system's times. Else: on, first probe after `idle` seconds."""
    if idle is None:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if idle:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, idle)


def drain(sock):
    try:
        while sock.recv(65536):
            pass
    except OSError:
        pass


def listen(port, idle=None, read=True, address="0.0.0.0"):
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if not read:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    server.bind((address, port))
    server.listen(64)
    accepted[port] = []

    def serve():
        while True:
            sock, _ = server.accept()
            keepalive(sock, idle)
            accepted[port].append(sock)
            if read:
                threading.Thread(target=drain, args=(sock,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()


def connect(name, host, port, count=1, idle=None, user_timeout=None):
    for _ in range(count):
        sock = socket.socket()
        keepalive(sock, idle)
        if user_timeout:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, user_timeout)
        sock.connect((host, port))
        sock.setblocking(False)
        opened.setdefault(name, []).append(sock)


def send(name, size=1):
    """Sends as much as each socket accepts, at most `size` bytes."""
    for sock in opened[name]:
        sent = 0
        try:
            while sent < size:
                sent += sock.send(b"x" * min(65536, size - sent))
        except OSError:
            pass


def chatter(name, every):
    """Sends a byte every `every` seconds, without end."""

    def talk():
        while name in opened:
            send(name)
            time.sleep(every)

    threading.Thread(target=talk, daemon=True).start()


def churn(name, host, port, lifetime):
    """Opens a new connection every `lifetime` seconds and closes the old one, so none is long-lived."""

    def turn():
        while True:
            connect(name, host, port)
            time.sleep(lifetime)
            close(name)

    threading.Thread(target=turn, daemon=True).start()


def close(name):
    for sock in opened.pop(name):
        sock.close()


def reset(port):
    """Closes the accepted connections of the port with a reset."""
    for sock in accepted[port]:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.shutdown(socket.SHUT_RD)  # ends the thread that reads it
        sock.close()
    accepted[port] = []


for line in sys.stdin:
    command, arguments = json.loads(line)
    globals()[command](**arguments)
    print("ok", flush=True)

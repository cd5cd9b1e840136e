#!/usr/bin/env python3
"""vsock_peer.py - the host's ends of vsock connections, for tests/integration/vsock.

  vsock_peer.py echo SOCKET             a service that sends back what comes, until it is killed
  vsock_peer.py ask SOCKET COMMANDS     a service for one connection: a line of the FIFO COMMANDS is
                                        sent, and what comes back printed; `end` ends
  vsock_peer.py talk API VM PORT COMMANDS   the same as a client, which upgrades
  vsock_peer.py connect API VM PORT [BYTES [TIMES]]
                                        upgrades, sends BYTES (20), half-closes, wants them back;
                                        prints `ok N`, or the status and problem it was answered
  vsock_peer.py hold API VM[,VM...] PORT [UID [TIMES]]
                                        as that user upgrades TIMES (1) connections to each, prints
                                        `open` or the refusal of each, is silent until the other end
                                        closes the first, and prints `ended`

API is a unix socket, or HOST:PORT:CA-FILE:TOKEN by TLS.
"""
import os
import socket
import ssl
import sys
import threading


def listen(path):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(16)
    return listener


def echo_one(connection):
    with connection:
        while data := connection.recv(65536):
            connection.sendall(data)


def echo(path):
    listener = listen(path)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=echo_one, args=(connection,), daemon=True).start()


def receive(connection, count):
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            break
        data += part
    return data


def converse(connection, commands):
    connection.settimeout(20)
    print("accepted", flush=True)
    with open(commands, encoding="ascii") as lines:
        for line in lines:
            text = line.strip().encode()
            if text == b"end":
                break
            try:
                connection.sendall(text)
                print(receive(connection, len(text)).decode() or "closed", flush=True)
            except OSError as error:
                print(error, flush=True)


def ask(path, commands):
    connection, _ = listen(path).accept()
    converse(connection, commands)


def read_head(connection):
    head = b""
    while b"\r\n\r\n" not in head:
        part = connection.recv(1)
        if not part:
            break
        head += part
    return head.decode("latin-1")


def open_api(api):
    """The connection, and the headers that say who asks."""
    if api.startswith("/"):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(api)
        return connection, ""
    host, port, authority, token = api.split(":")
    context = ssl.create_default_context(cafile=authority)
    return context.wrap_socket(socket.create_connection((host, port)),
                               server_hostname=host), f"Authorization: Bearer {token}\r\n"


def upgrade(connection, headers, vm, port):
    """None, or the refusal."""
    connection.settimeout(40)
    connection.sendall(f"GET /v1/vms/{vm}/vsock/{port} HTTP/1.1\r\nHost: w\r\n{headers}"
                       "Connection: Upgrade\r\nUpgrade: vsock\r\n\r\n".encode())
    head = read_head(connection)
    status = head.split(" ")[1] if " " in head else "none"
    return None if status == "101" else status + " " + connection.recv(4096).decode("latin-1")


def talk(api, vm, port, commands):
    connection, headers = open_api(api)
    refusal = upgrade(connection, headers, vm, port)
    if refusal:
        print(refusal)
    else:
        converse(connection, commands)


def hold(api, vms, port, uid="0", times="1"):
    os.setuid(int(uid))
    held = []
    for vm in vms.split(",") * int(times):
        connection, headers = open_api(api)
        print(upgrade(connection, headers, vm, port) or "open", flush=True)
        held.append(connection)
    try:
        while held[0].recv(4096):
            pass
    except OSError:
        pass
    print("ended", flush=True)


def connect_one(api, vm, port, count):
    connection, headers = open_api(api)
    with connection:
        refusal = upgrade(connection, headers, vm, port)
        if refusal:
            return refusal
        sent = os.urandom(count)

        def send():
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        got = receive(connection, count + 1)
        sender.join()
        return f"ok {len(got)}" if got == sent else f"sent {count}, got {len(got)} bytes"


def connect(api, vm, port, count="20", times="1"):
    for _ in range(int(times)):
        result = connect_one(api, vm, port, int(count))
        if not result.startswith("ok"):
            break
    print(result)


{"echo": echo, "ask": ask, "talk": talk, "connect": connect, "hold": hold}[sys.argv[1]](*sys.argv[2:])

#!/usr/bin/env python3
"""http_facts.py - what libmicrohttpd does by itself and must not do here, seen from the outside, by the unix socket and
by TLS.  What can be shown within one process is in tests/unit/test_api_service.c.

  http_facts.py SOCKET CA HOST PORT TOKEN SECTION    `ok NAME` or `FAIL NAME: why` a line

SECTION is quick; slow: what ends at a deadline of 10 s or more; or few: of a server that may have 300 files."""
import json
import os
import re
import select
import socket
import ssl
import struct
import sys
import threading
import time

PATH, CA, HOST, PORT, TOKEN, SECTION = sys.argv[1:]
FOR_EVER = 40  # what does not come within that does not come


def by_unix():
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(FOR_EVER)
    connection.connect(PATH)
    return connection


def by_tcp(source="127.0.0.1"):
    return socket.create_connection((HOST, int(PORT)), FOR_EVER, (source, 0))


def by_tls(source="127.0.0.1"):
    return ssl.create_default_context(cafile=CA).wrap_socket(by_tcp(source), server_hostname=HOST)


def request(line, *headers, body=b""):
    lines = [line + " HTTP/1.1", "Host: w", "Authorization: Bearer " + TOKEN, *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def read_to_end(connection):
    answer = b""
    try:
        while part := connection.recv(65536):
            answer += part
    except (ConnectionResetError, BrokenPipeError, ssl.SSLEOFError):
        pass
    return answer


def exchange(connection, data):
    """The status and body of the answer to what ends the connection."""
    with connection:
        try:
            connection.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # answered before all was taken
        head, _, body = read_to_end(connection).partition(b"\r\n\r\n")
    return int(head.split()[1]) if head else 0, head, body


def expect(what, found, wanted):
    if found != wanted:
        raise AssertionError(f"{what}: {found}, not {wanted}")


def outstanding():
    body = exchange(by_unix(), request("GET /metrics", "Connection: close"))[2].decode()
    return int(body.split("\nwarren_api_requests_outstanding ")[1].split()[0])


# --- quick ---

def every_error_is_a_problem_document():
    put = "PUT /v1/vms/a"
    cases = [
        (400, request("GET /v1/vms", "Host: other")),
        (400, request("GET /v1/vms#x")),
        (400, request("GET /v1/vms%2fa", "Connection: close")),
        (400, request("GET /v1/vms/a%00", "Connection: close")),
        (400, request(put, "Content-Length: 2", "Content-Length: 3", body=b"{} ")),
        (400, request(put, "Content-Length : 2", body=b"{}")),
        (400, request(put, "Content-Length:\r\n 2", body=b"{}")),
        (400, request(put, "Content: 2\r\n -Length", body=b"{}")),
        (400, request("GET /v1/vms", "X: a\r\n b")),
        (400, request("GET /v1/vms", "X: a\r\n ")),
        (400, request("GET /v1/vms", "X: a\0b")),
        (400, request("GET /v1/vms", "X: a", ": b")),
        (400, request("GET /v1/vms", "X: a", ":")),
        (400, request("GET /v1/vms", "X: a\nY: b")),
        (400, request("GET /v1/vms\0b")),
        (400, request("GET\0b /v1/vms")),
        (400, request(put, "Content-Type: application/json", "Content-Length: 1", "Connection: close", body=b"{")),
        (404, request("GET /v1/vms/absent", "Connection: close")),
        (404, request("GET /v1/vms/../vms", "Connection: close")),
        (405, request("POST /v1/vms", "Connection: close")),
        (411, request(put, "Transfer-Encoding: chunked", body=b"2\r\n{}\r\n0\r\n\r\n")),
        (411, request(put, "Content-Length: 2", "Transfer-Encoding: chunked", body=b"{}")),
        (413, request(put, "Content-Length: 1048577")),
        (414, request("GET /" + "x" * 5000)),
        (415, request(put, "Content-Type: text/plain", "Content-Length: 2", "Connection: close", body=b"{}")),
        (415, request(put, "Content-Encoding: gzip", "Content-Length: 2", body=b"{}")),
        (426, request("GET /v1/vms/absent/vsock/7", "Connection: close")),
        (431, request("GET /v1/vms", "X: " + "x" * 20000)),
        (431, request("GET /v1/vms", *["X: y"] * 101)),
    ]
    for connect in by_unix, by_tls:
        for status, data in cases:
            found, head, body = exchange(connect(), data)
            expect(data[:60], found, status)
            expect(data[:60], b"application/problem+json" in head, True)
            expect(data[:60], json.loads(body)["status"], status)
            expect(data[:60], head.count(b"\r\nDate:"), 1)


def what_is_no_http_ends_the_connection():
    for data in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200) + b"\r\n\r\n", b"\r\n" * 5000,
                 b"GET\r\n\r\n", b"\0" * 100 + b"\r\n\r\n"):
        with by_unix() as connection:
            try:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
            except OSError:
                pass
            status = read_to_end(connection)[:12]
        expect(data[:20], status if status not in (b"", b"HTTP/1.1 400", b"HTTP/1.1 505") else b"", b"")
    with by_tcp() as connection:  # no TLS
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: w\r\n\r\n")
        expect("plain HTTP", b"HTTP" in read_to_end(connection), False)


def a_second_request_is_not_in_the_first_ones_body():
    """What follows a request that was refused for its framing is never taken for a request."""
    hidden = request("PUT /v1/volumes/smuggled", "Content-Type: application/json", "Content-Length: 14",
                     body=b'{"size_mib":4}')
    for connect in by_unix, by_tls:
        for header in ("Transfer-Encoding: chunked", "Content-Length: +0", "Transfer-Encoding:\r\n chunked",
                       f"Content-Length:\r\n {len(hidden)}", f"Content-Length: {len(hidden)}\r\n ", ": x",
                       f"X: y\0\r\nContent-Length: {len(hidden)}\0"):
            exchange(connect(), request("PUT /v1/vms/a", header, body=hidden))
    expect("smuggled", exchange(by_unix(), request("GET /v1/volumes/smuggled", "Connection: close"))[0], 404)


def what_is_right_is_served_however_it_comes():
    """In pieces that end anywhere, one behind the other, with as much in its headers as may be: to be refused for
    what is asked does not end the connection."""
    plain = request("GET /v1/vms/absent?x", "a:b", "Empty:", "Spaces: \t  ", "Tab:\tx", "Long: " + "y" * 9000)
    many = request("GET /v1/vms/absent%31", *[f"X-{i}:{' ' * (i % 7)}{'v' * i}" for i in range(90)])
    body = request("PUT /v1/vms/A", "Content-Type: application/json", "Content-Length: 2", body=b"{}")
    last = request("GET /healthz", "Connection: close")
    for connect in by_unix, by_tls:
        for size in (1, 2, 3, 7, 64, 1000, 100000):
            for each in plain, many, body:
                data = each + each + last
                with connect() as connection:
                    for start in range(0, len(data), size):
                        connection.sendall(data[start:start + size])
                    statuses = re.findall(rb"HTTP/1.1 (\d+) ", read_to_end(connection))
                expect(f"{each[:20]}, {size} bytes at a time", statuses, [b"400", b"400", b"200"])


def who_leaves_is_noticed():
    for connect in by_unix, by_tls:
        before = outstanding()
        connection = connect()
        connection.sendall(request("GET /v1/vms/waited/wait?for=deleted&timeout=600"))
        while outstanding() == before:
            time.sleep(0.02)
        if connect == by_tls:
            connection.shutdown(socket.SHUT_WR)  # its end, as a close would send it, and no reset
        else:
            connection.close()
        while outstanding() != before:
            time.sleep(0.02)
        connection.close()


def one_address_gets_so_many_connections():
    held = [by_tcp() for _ in range(400)]
    gone = 0
    while gone < 400 - 256 - 5:  # some may be closing from before
        gone = sum(1 for c in held if c in select.select(held, [], [], 0)[0])
        time.sleep(0.02)
    status = exchange(by_tls("127.0.0.2"), request("GET /v1/vms", "Connection: close"))[0]
    for connection in held:
        connection.close()
    expect("from another address", status, 200)


def many_idle_ones_do_not_matter():
    held = []
    for _ in range(2000):
        held.append(by_unix())
        if len(held) % 2:
            held[-1].sendall(b"GET /healthz HTTP/1.1\r\nHost:")
    expect("/healthz", exchange(by_unix(), request("GET /healthz", "Connection: close"))[0], 200)
    for connection in held:
        connection.close()


# --- few ---

def who_finds_no_room_waits():
    kept = by_unix()
    ask = b"GET /healthz HTTP/1.1\r\nHost: w\r\n\r\n"

    def is_served():
        kept.sendall(ask)
        expect("who has a connection", kept.recv(4096)[:12], b"HTTP/1.1 200")

    is_served()
    held = [by_unix() for _ in range(350)]
    late = by_unix()
    late.sendall(ask)
    is_served()
    expect("who is late is served", select.select([late], [], [], 0.5)[0], [])
    used = processor_ticks()
    time.sleep(1)
    expect("it spins", processor_ticks() - used > 50, False)
    for connection in held:
        connection.close()
    expect("once there is room", late.recv(4096)[:12], b"HTTP/1.1 200")
    is_served()


def processor_ticks():
    """Of each warren-api."""
    total = 0
    for pid in os.environ["SERVERS"].split():
        fields = open(f"/proc/{pid}/stat", encoding="ascii").read().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total


# --- slow: one thread each ---

def dribble(connection, head, part):
    """Is never silent for a second, so that a time-out by silence would never come."""
    with connection:
        connection.sendall(head)
        while True:
            readable = select.select([connection], [], [], 0.5)[0]
            try:
                if readable and not connection.recv(1000):
                    return
                connection.sendall(part)
            except OSError:
                return


def a_header_has_an_end():
    dribble(by_unix(), b"GET /healthz HTTP/1.1\r\n", b"X: y\r\n")


def a_header_by_tls_has_an_end():
    dribble(by_tls(), b"GET /healthz HTTP/1.1\r\n", b"X: y\r\n")


def a_handshake_has_an_end():
    dribble(by_tcp(), struct.pack(">BHH", 22, 0x301, 512), b"\1")


def a_silent_one_is_disconnected():
    with by_tls() as connection:
        expect("answer", read_to_end(connection), b"")


def a_body_has_an_end():
    dribble(by_unix(), request("PUT /v1/vms/a", "Content-Length: 1000000"), b"{")


QUICK = [every_error_is_a_problem_document, what_is_no_http_ends_the_connection,
         a_second_request_is_not_in_the_first_ones_body, what_is_right_is_served_however_it_comes, who_leaves_is_noticed, one_address_gets_so_many_connections,
         many_idle_ones_do_not_matter]
SLOW = [a_header_has_an_end, a_header_by_tls_has_an_end, a_handshake_has_an_end, a_silent_one_is_disconnected]


def run(test):
    name = test.__name__.replace("_", " ")
    try:
        test()
        print(f"ok   {name}\n", end="", flush=True) # one write: others print, too
    except Exception as error:  # whatever it is, it is the test's failure
        print(f"FAIL {name}: {type(error).__name__} {error}\n", end="", flush=True)


if SECTION in ("quick", "few"):
    for each in QUICK if SECTION == "quick" else [who_finds_no_room_waits]:
        run(each)
else:
    if "SOAK" in os.environ:
        SLOW.append(a_body_has_an_end)  # 30 s
    threads = [threading.Thread(target=run, args=(each,)) for each in SLOW]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

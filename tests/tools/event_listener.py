#!/usr/bin/env python3
"""event_listener.py - follows GET /v1/events over the unix socket, as an EventSource does.

  event_listener.py SOCKET QUERY [LAST-EVENT-ID]

Prints each event's JSON in a line.  Comes again with Last-Event-ID when the stream ends or the agent is
not there; ends at any answer but 200 and 503, with `status N` as its last line, or with `wrong ...` if a
stream is not one.  `opened N` on stderr says that stream N is open."""
import http.client
import socket
import sys
import time


class Connection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("warren", timeout=60)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(60)
        self.sock.connect(self.path)


def read_events(response, last):
    """What ends without an empty line is not dispatched, and not seen: the next stream has it whole."""
    fields = {}
    for line in response:
        line = line.decode().rstrip("\n")
        if line == "":
            last = fields.get("id", last)
            if "data" in fields:
                print(fields["data"], flush=True)
            fields = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(": ")
            if name in fields:
                sys.exit(print("wrong: two of", name))
            fields[name] = value
        yield last


def main():
    path, query, last = sys.argv[1], sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else None
    streams = 0
    while True:
        try:
            connection = Connection(path)
            connection.request("GET", "/v1/events" + query, headers={"Last-Event-ID": last} if last else {})
            response = connection.getresponse()
            if response.status == 200:
                if response.getheader("Content-Type") != "text/event-stream":
                    sys.exit(print("wrong: Content-Type", response.getheader("Content-Type")))
                streams += 1
                print("opened", streams, file=sys.stderr, flush=True)
                for last in read_events(response, last):
                    pass
            elif response.status != 503:
                sys.exit(print("status", response.status, flush=True))
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(0.1)


main()

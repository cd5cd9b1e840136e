#!/usr/bin/env python3
"""route_walk.py - asks for each route of openapi.yaml as a stranger, with a wrong token, and with one that has the
scope `metrics`, and says which answers are wrong.

  route_walk.py OPENAPI CA HOST:PORT TOKEN     one line for each wrong answer, then the number of routes"""
import http.client
import re
import ssl
import sys

OPEN = {"/healthz", "/readyz", "/openapi.yaml"}


def routes(path):
    in_paths, where = False, None
    for line in open(path, encoding="utf-8"):
        if re.match(r"\w+:", line):
            in_paths = line.startswith("paths:")
        elif in_paths and (found := re.match(r"  (/\S*):", line)):
            where = found.group(1)
        elif in_paths and (found := re.match(r"    (get|put|post|patch|delete):", line)):
            yield found.group(1).upper(), where


def main():
    openapi, ca, address, token = sys.argv[1:]
    context = ssl.create_default_context(cafile=ca)
    connection = http.client.HTTPSConnection(address, context=context, timeout=20)
    count = 0

    def ask(method, path, expected, authorization, challenge):
        headers = {"Authorization": "Bearer " + authorization} if authorization else {}
        connection.request(method, path, headers=headers)
        reply = connection.getresponse()
        body = reply.read()
        problem = reply.headers["Content-Type"] == "application/problem+json"
        if reply.status != expected or (expected >= 400) != problem or \
                (challenge or "") not in (reply.headers["WWW-Authenticate"] or ""):
            print(f"{method} {path} {authorization and authorization[:3]}: {reply.status} {body[:80]}")

    for method, template in routes(openapi):
        count += 1
        path = template.replace("{port}", "7")
        path = re.sub(r"{\w+}", "any", path)
        is_open = template in OPEN
        ask(method, path, 200 if is_open else 401, None, None if is_open else 'Bearer realm="warren"')
        ask(method, path, 200 if is_open else 401, "wrong", None if is_open else 'error="invalid_token"')
        may = is_open or template == "/metrics"
        ask(method, path, 200 if may else 403, token, None if may else 'error="insufficient_scope"')
    print(count)


main()

"""A client of the C core with the printed channel arguments: client.py ARGUMENTS HOST PORT [SECONDS BETWEEN CALLS]."""

import json
import sys
import time

import grpc

options, host, port, *every = sys.argv[1:]
channel = grpc.insecure_channel(f"{host}:{port}", options=list(json.load(open(options))["client"].items()))
call = channel.unary_unary("/lab/Echo")
print("answered" if call(b"hello") == b"hello" else "no", flush=True)
while True:
    time.sleep(float(every[0]) if every else 3600)
    call(b"hello")

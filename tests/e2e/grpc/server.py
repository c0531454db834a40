"""An echo server of the C core with the printed channel arguments: server.py ARGUMENTS PORT."""

import concurrent.futures
import json
import sys

import grpc

options, port = sys.argv[1:]
server = grpc.server(concurrent.futures.ThreadPoolExecutor(1), options=list(json.load(open(options))["server"].items()))
handler = grpc.unary_unary_rpc_method_handler(lambda request, context: request)
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("lab", {"Echo": handler}),))
server.add_insecure_port(f"0.0.0.0:{port}")
server.start()
server.wait_for_termination()

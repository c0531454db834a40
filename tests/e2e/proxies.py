"""nginx as a test configures it, and a proxy on the gateway with a request through it."""

import lab

HTTP = "GET / HTTP/1.1\r\nHost: lab\r\n\r\n"


def nginx(directory, server, http=""):
    """Writes the configuration of one server. Returns the command that runs it in the foreground, with its files in the directory."""
    config = directory / "nginx.conf"
    config.write_text(f"""
        daemon off; pid {directory}/nginx.pid; error_log stderr; user root;
        events {{}}
        http {{
            access_log off;
            client_body_temp_path {directory}; proxy_temp_path {directory};
            fastcgi_temp_path {directory}; uwsgi_temp_path {directory}; scgi_temp_path {directory};
            {http}
            server {{
                {server}
            }}
        }}
        """)
    return ("nginx", "-c", config, "-p", directory)


def start(test, *command, port=8080):
    """Starts a proxy on the gateway, and sends a request through it to port 9000 of the backend, which never answers."""
    process = test.start(lab.GATEWAY, *command)
    test.wait_for_port(lab.GATEWAY, port, process)
    test.dial(lab.CLIENT, lab.GATEWAY_FRONT, port, say=HTTP, until="connected")
    to_backend = ("ss", "-Htn", "state", "established", "dport = :9000")
    test.wait_until(lambda: test.run_in(lab.GATEWAY, *to_backend), "the proxy to reach the backend")
    return process

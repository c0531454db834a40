"""MariaDB with clients in four languages, and PgBouncer: flagged with default settings, protected with the output of `remedy` as printed."""

import os
import signal
import sys
import unittest

import lab
import programs_test as programs
from remedied import FLAGS, RemedyTest

AS_POSTGRES = ("setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups")
MYSQL = f"{lab.BACKEND_IP}:3306"
PHP = '$c = new mysqli($argv[1], "lab", ""); $c->query("select 1"); echo "connected\\n"; sleep(600);'
RUBY = 'require "mysql2"; c = Mysql2::Client.new(host: ARGV[0], username: "lab"); c.query("select 1"); puts "connected"; $stdout.flush; sleep'
PYMYSQL = 'import pymysql, sys, time; c = pymysql.connect(host=sys.argv[1], user="lab"); print("connected", flush=True); time.sleep(600)'
MYSQL2 = 'require("mysql2").createPool({host: process.argv[1], user: "lab"}).query("select 1", (e) => console.log(e ?? "connected"))'


class MySqlTest(RemedyTest):
    def setUp(self):
        super().setUp()
        self.data = self.dir / "mysql"
        install = ("mariadb-install-db", "--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db", f"--datadir={self.data}")
        self.run_in(lab.BACKEND, *install, "--user=mysql")
        self.config = self.dir / "my.cnf"
        self.config.write_text("[mariadbd]\nskip-grant-tables\nskip-networking=0\nbind-address=0.0.0.0\nskip-name-resolve\n")

    def server(self):
        options = (f"--datadir={self.data}", f"--socket={self.data}/mysql.sock", "--user=mysql", "--pid-file=mysql.pid")
        server = self.start(lab.BACKEND, "mariadbd", f"--defaults-file={self.config}", *options)
        self.wait_for_port(lab.BACKEND, 3306, server)
        return server

    def client(self, *command, **options):
        client = self.start(lab.CLIENT, *command, **options)
        self.wait_for_word(client, "connected")
        return client

    def shell(self):
        shell = self.start(lab.CLIENT, "mariadb", "--no-defaults", "--skip-ssl", "--unbuffered", "-h", lab.BACKEND_IP, "-u", "lab")
        shell.stdin.write(b"select 'connected';\n")
        shell.stdin.flush()
        self.wait_for_word(shell, "connected")
        return shell

    def clients(self):
        return {
            "mariadb (Connector/C)": self.shell(),
            "PHP mysqli": self.client("php", "-r", PHP, "--", lab.BACKEND_IP),
            "Ruby mysql2": self.client("ruby", "-e", RUBY, lab.BACKEND_IP),
            "PyMySQL": self.client(sys.executable, "-c", PYMYSQL, lab.BACKEND_IP),
        }

    def test_mysql_clients_take_the_sysctls_and_the_server_its_own_settings(self):
        server = self.server()
        clients = self.clients()
        self.before(lab.CLIENT, "late", endpoint=MYSQL)
        self.before(lab.BACKEND, "late", endpoint=":3306")
        for client in clients.values():
            lab.stop(client)

        self.set_sysctls(lab.CLIENT, "mysql")
        for program, client in self.clients().items():
            self.after(lab.CLIENT, target="mysql", program=program, before="late", endpoint=MYSQL)
            lab.stop(client)
        lab.stop(server)
        self.unset_sysctls(lab.CLIENT)

        with self.config.open("a") as settings:
            settings.write(lab.remedy("mariadb", *FLAGS))
        self.server()
        self.shell()
        self.after(lab.BACKEND, target="mariadb", program="MariaDB server", before="late", endpoint=":3306")
        verdicts = {c["verdict"] for c in self.connections(lab.CLIENT, endpoint=MYSQL)}
        self.assertEqual(verdicts, {"peer_protected"}, "the server's probes keep the path's entry too")

    @unittest.skipUnless("NODE_PATH" in os.environ, "mysql2 is not installed")
    def test_mysql2_of_node(self):
        self.server()
        plain = self.client("node", "-e", MYSQL2, lab.BACKEND_IP)
        self.before(lab.CLIENT, "late", endpoint=MYSQL)
        lab.stop(plain)
        printed = self.dir / "keepalive.js"
        printed.write_text(lab.remedy("mysql2", "--host", lab.BACKEND_IP, *FLAGS))
        self.client("node", printed, env={**os.environ, "MYSQL_USER": "lab"})
        self.after(lab.CLIENT, target="mysql2", program="mysql2 of Node", before="late", interval=1, probes=10, endpoint=MYSQL)


def postgresql(test, settings=""):
    """A server on the backend."""
    data = test.dir / "data"
    initdb = programs.as_postgres("initdb", "-D", data, "-A", "trust", "--no-sync")
    for command in (("chown", "postgres", test.dir), initdb):
        test.run_in(lab.BACKEND, *command)
    with (data / "pg_hba.conf").open("a") as access:
        access.write("host all all 10.77.0.0/16 trust\n")
    with (data / "postgresql.conf").open("a") as file:
        file.write(settings)
    options = ("-c", "listen_addresses=*", "-k", test.dir)
    server = test.start(lab.BACKEND, *programs.as_postgres("postgres", "-D", data, *options))
    test.wait_for_port(lab.BACKEND, 5432, server)


def pgbouncer(test, settings=""):
    """A pooler on the gateway."""
    users, config = test.dir / "users.txt", test.dir / "pgbouncer.ini"
    users.write_text('"postgres" ""\n')
    config.write_text(
        f"[databases]\npostgres = host={lab.BACKEND_IP} port=5432\n[pgbouncer]\nlisten_addr = 0.0.0.0\nlisten_port = 6432\n"
        f"unix_socket_dir =\nauth_type = trust\nauth_file = {users}\nadmin_users = postgres\n{settings}"
    )
    pooler = test.start(lab.GATEWAY, *AS_POSTGRES, "pgbouncer", config)
    test.wait_for_port(lab.GATEWAY, 6432, pooler)
    return pooler, config


def conninfo(database):
    return f"host={lab.GATEWAY_FRONT} port=6432 user=postgres dbname={database}"


def psql(test, words):
    session = test.start(lab.CLIENT, programs.POSTGRES / "psql", words, "--no-psqlrc")
    session.stdin.write(b"select 'answered';\n")
    session.stdin.flush()
    test.wait_for_word(session, "answered")
    return session


class PgBouncerTest(RemedyTest):
    def test_pgbouncer(self):
        """On the gateway, between a client and PostgreSQL."""
        postgresql(self)
        pooler, config = pgbouncer(self)
        first = psql(self, conninfo("postgres"))
        sides = {"inbound": ":6432", "outbound": f"{lab.BACKEND_IP}:5432"}
        for direction, endpoint in sides.items():
            self.before(lab.GATEWAY, "late", direction=direction, endpoint=endpoint)
        lab.stop(first)

        # A setting that pgbouncer.ini already has is replaced by the later one.
        with config.open("a") as settings:
            settings.write(lab.remedy("pgbouncer", *FLAGS))
        os.kill(pooler.pid, signal.SIGHUP)
        self.wait_until(lambda: "re-reading config" in pooler.log.read_text(), "PgBouncer to reload")
        # as the hint says: the pool keeps its connections otherwise
        self.run_in(lab.CLIENT, programs.POSTGRES / "psql", conninfo("pgbouncer"), "--no-psqlrc", "-c", "RECONNECT")
        psql(self, conninfo("postgres"))
        for direction, endpoint in sides.items():
            program = f"PgBouncer, {direction}"
            self.after(lab.GATEWAY, target="pgbouncer", program=program, before="late", direction=direction, endpoint=endpoint)


if __name__ == "__main__":
    unittest.main()

#!/usr/bin/env bash
# The scene of docs/story.md on real sockets, step by step: `bash docs/story.sh [PROGRAM]`, as root, in about a minute.
# It needs iproute2, nftables and python3. Everything happens in three network namespaces, which it deletes.
set -euo pipefail
program=${1:-keepalive-auditor}
work=$(mktemp -d)
for host in shop gateway db; do ip netns add "$host"; done
finish() {
    kill "${pids[@]}" 2>/dev/null || true
    for host in shop gateway db; do ip netns del "$host"; done
    rm -rf "$work"
}
pids=()
trap finish EXIT

# shop 10.1.0.2 -- gateway (NAT, drops idle flows after 20 s) -- db 10.2.0.2
ip link add eth0 netns shop type veth peer name inside netns gateway
ip link add eth0 netns db type veth peer name outside netns gateway
ip -n shop addr add 10.1.0.2/24 dev eth0
ip -n gateway addr add 10.1.0.1/24 dev inside
ip -n gateway addr add 10.2.0.1/24 dev outside
ip -n db addr add 10.2.0.2/24 dev eth0
ip -n shop link set eth0 up
ip -n db link set eth0 up
ip -n gateway link set inside up
ip -n gateway link set outside up
ip -n shop route add default via 10.1.0.1
ip -n db route add default via 10.2.0.1
ip netns exec gateway nft -f - <<'RULES'
table ip gateway {
    chain translate {
        type nat hook postrouting priority 100
        oifname "outside" masquerade
    }
    chain unknown {
        type filter hook forward priority 0
        ct state invalid drop
    }
}
RULES
ip netns exec gateway sysctl -qw net.ipv4.ip_forward=1 net.netfilter.nf_conntrack_tcp_loose=0 \
    net.netfilter.nf_conntrack_tcp_timeout_established=20

cat >"$work/db.py" <<'PYTHON'
import socket, threading
def answer(client):
    while client.recv(100):
        client.sendall(b"ok\n")
server = socket.create_server(("10.2.0.2", 5432))
while True:
    threading.Thread(target=answer, args=(server.accept()[0],), daemon=True).start()
PYTHON
cat >"$work/shop.py" <<'PYTHON'
import socket, sys
KEEPALIVE = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
             (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1), (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 5)]
def connect():
    connection = socket.create_connection(("10.2.0.2", 5432))
    for option in KEEPALIVE if "keepalive" in sys.argv else []:
        connection.setsockopt(*option)
    return connection
def query(connection):
    connection.sendall(b"select 1\n")
    return connection.recv(10)
pool = [connect() for _ in range(3)]
for connection in pool:
    query(connection)
print("the shop has a pool of 3 connections", flush=True)
for order in sys.stdin:
    pool[0].settimeout(12)
    try:
        query(pool[0])
        print("order: done", flush=True)
    except OSError as error:
        print(f"order: failed, {error}", flush=True)
PYTHON

show() { echo "\$ keepalive-auditor $*" && "$program" "$@" 2>/dev/null; }
limits=(--netns shop --idle-timeout 20s --long-lived 10s)
start_shop() {
    mkfifo "$work/orders"
    ip netns exec shop python3 "$work/shop.py" "$@" <"$work/orders" >"$work/shop.log" &
    shop=$!
    pids+=("$shop")
    exec 3>"$work/orders"
    rm "$work/orders"
    until grep -q pool "$work/shop.log"; do sleep 0.1; done
    cat "$work/shop.log"
}
order() { # waits for the answer
    echo order >&3
    until grep -q order: "$work/shop.log"; do sleep 0.1; done
    grep order: "$work/shop.log"
}

ip netns exec db python3 "$work/db.py" &
pids+=("$!")
until ip netns exec db ss -tln | grep -q :5432; do sleep 0.1; done
start_shop
echo "nobody orders anything for 25 s" && sleep 25
show audit "${limits[@]}" --record "$work/before.jsonl"
echo order >&3 && sleep 5
show audit "${limits[@]}" --explain
until grep -q order: "$work/shop.log"; do sleep 0.1; done
grep order: "$work/shop.log"
show remedy python --idle-timeout 20s --host 10.2.0.2 --port 5432 | sed -n '1,9p'
kill "$shop"
start_shop keepalive
echo "nobody orders anything for 25 s" && sleep 25
show audit "${limits[@]}" --all
show audit "${limits[@]}" --compare "$work/before.jsonl"
order

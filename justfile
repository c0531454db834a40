# The index of commands: `just` lists them. Each runs what CI runs; without just, run the line itself.

# list the commands
default:
    @just --list --unsorted

# all checks of CI
ci:
    bash .ci/run

# the tests
test *ARGS:
    cargo test {{ ARGS }}

# the tests again, as an unprivileged user
test-unprivileged:
    bash .ci/run test-unprivileged

# the kernel checks on other kernels, in QEMU
kernels:
    bash .ci/kernels

# fuzz each target for this many seconds; with more arguments only these targets
fuzz SECONDS="60" *TARGETS:
    fuzz/run {{ SECONDS }} {{ TARGETS }}

# formatting, scripts, clippy
lint:
    bash .ci/run format scripts lint

# format the sources and this file
format:
    cargo fmt --all
    just --fmt --unstable

# the documentation, warnings are errors
doc:
    bash .ci/run doc

# licences, sources and bans of the dependencies; the compiler that they need
deny:
    bash .ci/run dependencies rust-version

# known vulnerabilities in the dependencies (clones a database from the internet)
advisories:
    cargo deny check advisories

# build the image, check its content, start it
image:
    bash .ci/run image

# the end-to-end tests with real programs
e2e:
    bash .ci/run '[6-9]*'

# run 2 000 connections of all kinds for this many minutes and compare every judgement with the events on them
soak MINUTES="20":
    tests/soak/run {{ MINUTES }}

# two agents amid churn, faults and attackers for this many minutes: compare `/metrics` with the truth (as root)
trust-soak MINUTES="25":
    tests/trust/soak {{ MINUTES }}

# show a router that drops idle connections, what is flagged, and what breaks; or `just demo reset`, `just demo backend`
demo *BEHAVIOUR:
    tests/demo/run {{ BEHAVIOUR }}

# measure the program's cost and compare it with its limits; with an argument one of them: `just bench namespaces`
bench *ARGS:
    cargo bench --bench limits -- {{ ARGS }}

# measure decoding, judging and rendering alone
bench-parts *ARGS:
    cargo bench --bench parts -- {{ ARGS }}

# count the instructions of a sweep: the number is the same on a busy machine
bench-instructions CONNECTIONS="20000":
    benches/callgrind {{ CONNECTIONS }}

# measure the growth tables of benches/README.md again
bench-growth:
    benches/growth

# measure the cost of naming connections on a node of 250 pods and 20 000 processes (as root)
owners-budget:
    cargo test --release --features measure --test owners_budget -- --nocapture

# audit this machine once
audit *ARGS:
    cargo build --release
    sudo "${CARGO_TARGET_DIR:-target}/release/keepalive-auditor" audit {{ ARGS }}

# run the agent on this machine, page and metrics at http://localhost:9986
agent *ARGS:
    cargo build --release
    sudo "${CARGO_TARGET_DIR:-target}/release/keepalive-auditor" agent --web.listen-address 127.0.0.1:9986 {{ ARGS }}

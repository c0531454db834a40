# The index of commands: `just` lists them. Each runs what CI runs; without just, the line itself does.

# list the commands
default:
    @just --list --unsorted

# everything that CI checks
ci:
    bash .ci/run

# the tests; as root also the ones that enter other namespaces
test *ARGS:
    cargo test {{ ARGS }}

# the tests again, as an unprivileged user
test-unprivileged:
    bash .ci/run test-unprivileged

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

# licences, sources and bans of the dependencies; what they ask of the compiler
deny:
    bash .ci/run dependencies rust-version

# known vulnerabilities in the dependencies (clones a database from the net)
advisories:
    cargo deny check advisories

# build the image, look inside, start it
image:
    bash .ci/run image

# the end-to-end tests with real programs
e2e:
    bash .ci/run '[6-9]*'

# 2 000 connections of all kinds for so many minutes: every judgement held against what was done
soak MINUTES="20":
    tests/soak/run {{ MINUTES }}

# what the program costs, beside its limits; with arguments one of them, `just bench namespaces`
bench *ARGS:
    cargo bench --bench limits -- {{ ARGS }}

# what the parts cost that touch nothing: decoding, judging, rendering
bench-parts *ARGS:
    cargo bench --bench parts -- {{ ARGS }}

# instructions of a sweep: the same number on a busy machine
bench-instructions CONNECTIONS="20000":
    benches/callgrind {{ CONNECTIONS }}

# the tables of growth in benches/README.md, measured anew
bench-growth:
    benches/growth

# what naming connections costs on a node of 250 pods and 20 000 processes (as root)
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

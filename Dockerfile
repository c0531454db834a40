# The agent's image: one static binary on an empty base.
#
#   docker buildx build --platform linux/amd64,linux/arm64 \
#       --build-arg VERSION=0.1.0 --build-arg REVISION="$(git rev-parse HEAD)" .
#
# The compiler always runs on the machine's own architecture and cross-compiles to the target. The Rust targets for musl
# bring their C library, and Rust's own linker supports both architectures. The C parts of the TLS cryptography are
# compiled by the image's gcc, or cross-compiled by clang. CI builds and starts the amd64 image. For arm64, it checks
# only the name of the compiler's target.
ARG BUILDER=docker.io/library/rust:1.95-slim-bookworm

FROM --platform=$BUILDPLATFORM $BUILDER AS build
ARG TARGETARCH
RUN case "$TARGETARCH" in \
        amd64) triple=x86_64-unknown-linux-musl ;; \
        arm64) triple=aarch64-unknown-linux-musl ;; \
        *) echo "TARGETARCH is '$TARGETARCH': this image is built for amd64 and arm64" >&2; exit 1 ;; \
    esac && echo "$triple" > /triple

FROM build AS binary
WORKDIR /src
COPY . .
ARG REVISION=unknown
ENV CARGO_HOME=/cargo \
    CARGO_TARGET_DIR=/target \
    CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_LINKER=rust-lld \
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER=rust-lld \
    KEEPALIVE_AUDITOR_REVISION=$REVISION
# The target directory is cached between builds. So the sources are touched: otherwise cargo would take files that are
# older than the last build of another checkout for already built.
RUN --mount=type=cache,target=/cargo/registry \
    --mount=type=cache,target=/target,sharing=locked \
    triple="$(cat /triple)" && \
    rustup target add "$triple" && \
    cc=gcc && \
    if [ "$triple" != "$(uname -m)-unknown-linux-musl" ]; then \
        cc=clang && \
        if ! command -v clang; then apt-get update -q && apt-get install -q -y --no-install-recommends clang; fi; \
    fi && \
    export "CC_$(echo "$triple" | tr - _)=$cc" && \
    find src -name '*.rs' -exec touch {} + && \
    cargo build --release --locked --bin keepalive-auditor --target "$triple" && \
    install -D "/target/$triple/release/keepalive-auditor" /out/keepalive-auditor

FROM scratch
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="keepalive-auditor" \
      org.opencontainers.image.description="Finds established TCP connections without an effective keepalive, in every network namespace of a node" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/keepalive-auditor/keepalive-auditor" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
COPY --from=binary /out/keepalive-auditor /keepalive-auditor
# The user is root because entering a network namespace needs CAP_SYS_ADMIN, and capabilities added to a container reach
# only uid 0. (The kernel would refuse a file capability under allowPrivilegeEscalation: false.) Run the image with every
# other capability dropped and a read-only root: see deploy/.
USER 0:0
# Prometheus metrics, the report and the page.
EXPOSE 9986
ENTRYPOINT ["/keepalive-auditor"]
CMD ["agent"]

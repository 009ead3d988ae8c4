# syntax=docker/dockerfile:1

FROM rust:1.95-bookworm AS build
WORKDIR /src
# Dependencies first, in a layer that changes with them alone.
COPY Cargo.toml Cargo.lock build.rs ./
RUN mkdir src tests \
    && echo 'fn main() {}' > src/main.rs && touch src/lib.rs tests/main.rs \
    && cargo build --release --locked --no-default-features --features iam \
    && rm -rf src tests target/release/.fingerprint/pontoon-*
COPY src src
# For `pontoon --version`: docker build --build-arg SOURCE_COMMIT=$(git rev-parse --short=12 HEAD)
ARG SOURCE_COMMIT
RUN mkdir tests && touch tests/main.rs && cargo build --release --locked --no-default-features --features iam --bin pontoon

# No shell, no package manager; glibc, CA certificates and a user that is not root.
FROM gcr.io/distroless/cc-debian12:nonroot
LABEL org.opencontainers.image.title="pontoon" \
      org.opencontainers.image.description="A sidecar that carries plaintext Redis and Valkey clients over verified TLS" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
COPY --from=build /src/target/release/pontoon /usr/local/bin/pontoon
USER 65532:65532
# `docker stop` waits 10 s by default, and runtime.drain_timeout is 25: docker stop --time 40
STOPSIGNAL SIGTERM
# Redis was reached in the last minute. For what restarts or replaces an unhealthy container (Swarm, ECS) ask `health --live`.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["/usr/local/bin/pontoon", "health"]
ENTRYPOINT ["/usr/local/bin/pontoon"]
CMD ["run"]

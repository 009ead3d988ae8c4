# syntax=docker/dockerfile:1

FROM --platform=$BUILDPLATFORM rust:1.95.0-trixie AS build
WORKDIR /src
ARG TARGETARCH
# Dependencies first, in a layer that is rebuilt only when they change.
COPY Cargo.toml Cargo.lock build.rs ./
COPY config/release/build.sh config/release/build.sh
RUN mkdir src tests \
    && echo 'fn main() {}' > src/main.rs && touch src/lib.rs tests/main.rs \
    && sh config/release/build.sh "$TARGETARCH" \
    && rm -rf src tests dist target/*/release/.fingerprint/pontoon-*
COPY src src
# Shown by `pontoon --version`: docker build --build-arg SOURCE_COMMIT=$(git rev-parse --short=12 HEAD)
ARG SOURCE_COMMIT
RUN mkdir tests && touch tests/main.rs && sh config/release/build.sh "$TARGETARCH" && mv "dist/$TARGETARCH" dist/image && mkdir dist/empty

# The base image has glibc, CA certificates and an unprivileged user, but no shell and no package manager.
FROM gcr.io/distroless/cc-debian13:nonroot
LABEL org.opencontainers.image.title="pontoon" \
      org.opencontainers.image.description="A sidecar that carries plaintext Redis and Valkey clients over verified TLS" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
COPY --from=build /src/dist/image/pontoon /usr/local/bin/pontoon
# Volumes that a platform mounts here, such as a task's own storage in ECS, get this owner.
COPY --from=build --chown=65532:65532 /src/dist/empty /var/lib/pontoon
COPY --from=build --chown=65532:65532 /src/dist/empty /run/pontoon
VOLUME ["/var/lib/pontoon", "/run/pontoon"]
USER 65532:65532
# `docker stop` waits only 10 s by default, but runtime.drain_timeout is 25 s. Use: docker stop --time 40
STOPSIGNAL SIGTERM
# Healthy while Redis was reached in the last minute. Where an unhealthy container is restarted or replaced (Swarm, ECS), use `health --live`.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["/usr/local/bin/pontoon", "health"]
ENTRYPOINT ["/usr/local/bin/pontoon"]
CMD ["run"]

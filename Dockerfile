# syntax=docker/dockerfile:1

FROM rust:1.95-bookworm AS build
WORKDIR /src
# Dependencies first, in a layer that changes with them alone.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src tests \
    && echo 'fn main() {}' > src/main.rs && touch src/lib.rs tests/main.rs \
    && cargo build --release --locked \
    && rm -rf src tests target/release/.fingerprint/pontoon-*
COPY src src
RUN mkdir tests && touch tests/main.rs && cargo build --release --locked --bin pontoon

# No shell, no package manager; glibc, CA certificates and a user that is not root.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /src/target/release/pontoon /usr/local/bin/pontoon
USER 65532:65532
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["/usr/local/bin/pontoon", "health"]
ENTRYPOINT ["/usr/local/bin/pontoon"]
CMD ["run"]

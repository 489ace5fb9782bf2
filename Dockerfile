# Both binaries, each an image of its own: docker build --target drover-operator | drover-worker
# The same contents as e2e/images/image.sh makes without Docker, and the list of crates for `cargo audit bin`. Not tried where there was no Docker.
# The compiler is the image's: rust-toolchain.toml, kept out by .dockerignore, would have rustup download it again.
ARG RUST=1.95.0
FROM rust:${RUST}-bookworm AS build
RUN cargo install --locked cargo-auditable --version '^0.7'
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo auditable build --release --locked -p drover-operator -p drover-worker \
    && install -D -t /out target/release/drover-operator target/release/drover-worker

FROM gcr.io/distroless/cc-debian12:nonroot AS drover-operator
COPY --from=build /out/drover-operator /usr/bin/drover-operator
USER 65532:65532
ENTRYPOINT ["/usr/bin/drover-operator"]

FROM gcr.io/distroless/cc-debian12:nonroot AS drover-worker
COPY --from=build /out/drover-worker /usr/bin/drover-worker
USER 65532:65532
ENTRYPOINT ["/usr/bin/drover-worker"]

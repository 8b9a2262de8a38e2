# The image of agent and controller: one static binary and nothing else.
#
#   docker buildx build --platform linux/amd64,linux/arm64 --tag REGISTRY/meridian:0.1.0 --push .

# A release names it by digest: --build-arg BUILDER=rust@sha256:… (SECURITY.md).
ARG BUILDER=rust:1.95-bookworm

# Built where the builder runs, for whatever machine it is to run on.
FROM --platform=$BUILDPLATFORM $BUILDER AS build
ARG TARGETARCH
WORKDIR /src
RUN case "$TARGETARCH" in \
        amd64) arch=x86_64 packages='gcc-x86-64-linux-gnu libc6-dev-amd64-cross' ;; \
        arm64) arch=aarch64 packages='gcc-aarch64-linux-gnu libc6-dev-arm64-cross' ;; \
        *) echo "no image for $TARGETARCH" >&2; exit 1 ;; \
    esac && \
    echo "$arch" >/arch && \
    rustup target add "$arch-unknown-linux-gnu" && \
    if [ "$arch" != "$(uname -m)" ]; then \
        apt-get update && apt-get install -y --no-install-recommends $packages && rm -rf /var/lib/apt/lists/*; \
    fi
COPY . .
RUN cp "$(scripts/static.sh "$(cat /arch)")" /meridian

FROM scratch
COPY --from=build /meridian /meridian
# The chart says who else; agents are root with three capabilities.
USER 65532:65532
ENTRYPOINT ["/meridian"]

#!/usr/bin/env bash
# Builds the image for both architectures, and pushes it. Needs Docker with buildx.
#
#   IMAGE=ghcr.io/organisation/pontoon REGISTRY_USER=… REGISTRY_PASSWORD=… image.sh
set -euo pipefail
version=$(bash config/release/version.sh)
docker login --username "$REGISTRY_USER" --password-stdin "${IMAGE%%/*}" <<<"$REGISTRY_PASSWORD"
# The default builder of some versions of Docker cannot push for two architectures.
docker buildx create --use
docker buildx build --platform linux/amd64,linux/arm64 --build-arg "SOURCE_COMMIT=$(git rev-parse --short=12 HEAD)" \
  --provenance=true --sbom=true --tag "$IMAGE:$version" --push .

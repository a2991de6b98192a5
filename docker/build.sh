#!/bin/sh
# Builds an image for each TARGET: with Docker where an engine answers, else with podman, else with buildah, which needs
# no engine, as root. All of these may be set:
#   TARGETS      "verify full", or one of them
#   IMAGE        the name; the tags are VERSION-verify and VERSION
#   BASE         the base image; without an engine, where none is named, docker/base.sh makes one
#   TORCH_INDEX  where torch comes from (see the Dockerfile)
#   STORAGE      buildah's storage: a folder with room for several copies of each image
set -eu
cd "$(dirname "$0")/.."

TARGETS=${TARGETS:-verify full}
VERSION=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' compressor/version.py)
REVISION=$(git rev-parse HEAD 2>/dev/null || echo unknown)
STORAGE=${STORAGE:-/var/tmp/compress-image}

if docker info >/dev/null 2>&1; then
    build() { docker build "$@"; }
elif command -v podman >/dev/null; then
    build() { podman build "$@"; }
elif command -v buildah >/dev/null; then
    mkdir -p "$STORAGE"
    images() { buildah --root "$STORAGE/storage" --runroot "$STORAGE/run" --storage-driver vfs "$@"; }
    build() { TMPDIR=$STORAGE images bud --isolation chroot "$@"; }
    IMAGE=${IMAGE:-localhost/compress}
    if [ -z "${BASE:-}" ]; then
        BASE=localhost/compress-base
        images inspect --type image "$BASE" >/dev/null 2>&1 || docker/base.sh "$STORAGE" "$BASE"
    fi
else
    echo "No Docker engine, podman or buildah is here; on Debian: apt install buildah debootstrap" >&2
    exit 2
fi
IMAGE=${IMAGE:-compress}

for target in $TARGETS; do
    case $target in
        verify) tag=$IMAGE:$VERSION-verify ;;
        full) tag=$IMAGE:$VERSION ;;
        *) echo "There is no target $target; there are verify and full." >&2; exit 2 ;;
    esac
    set -- --target "$target" --build-arg "VERSION=$VERSION" --build-arg "REVISION=$REVISION" --tag "$tag"
    if [ -n "${BASE:-}" ]; then set -- "$@" --build-arg "BASE=$BASE"; fi
    # An empty TORCH_INDEX has a meaning of its own: pip's index.
    if [ -n "${TORCH_INDEX+set}" ]; then set -- "$@" --build-arg "TORCH_INDEX=$TORCH_INDEX"; fi
    build "$@" .
    echo "$tag"
done

#!/bin/sh
# Makes a base image without a registry of images: Debian bookworm with Python 3.11, by debootstrap, as root.
#   docker/base.sh STORAGE NAME
set -eu
storage=$1 name=$2
images() { buildah --root "$storage/storage" --runroot "$storage/run" --storage-driver vfs "$@"; }

root=$(mktemp -d "$storage/base.XXXXXX")
trap 'rm -rf "$root"' EXIT
debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$root"
chmod 755 "$root"
# What this machine trusts, the build trusts: it may sit behind a proxy with a certificate of its own.
install -m 644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*

container=$(images from scratch)
images add --quiet "$container" "$root" /
images config --cmd sh "$container"
images commit --quiet "$container" "$name"
images rm "$container" >/dev/null

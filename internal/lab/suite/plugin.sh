#!/bin/sh
# Builds what depends on Slurm's and MPI's headers, in the root of a suite.
# plugin.sh ROOT SOURCE OUT CACHE: OUT is a folder below SOURCE; CACHE keeps Go's objects.
# Run it in a mount namespace and a PID namespace of its own: the root itself is not written to.
set -eu
root=$1 source=$2 out=$3 cache=$4/objects work=$4/work
goroot=$(go env GOROOT) modules=$(go env GOMODCACHE)

mkdir -p "$cache" "$work" "$out"
mount -t tmpfs tmpfs "$work" # gone with the namespace
mkdir "$work/upper" "$work/work" "$work/root"
mount -t overlay overlay -o "lowerdir=$root,upperdir=$work/upper,workdir=$work/work" "$work/root"
mount -t proc proc "$work/root/proc"
mount --rbind /dev "$work/root/dev"
for folder in "$goroot" "$modules" "$source" "$cache"; do
	mkdir -p "$work/root$folder"
	mount --bind "$folder" "$work/root$folder"
done
mount -o remount,bind,ro "$work/root$goroot"
mount -o remount,bind,ro "$work/root$modules"

env -i PATH="$goroot/bin:/usr/sbin:/usr/bin:/sbin:/bin" HOME=/root LC_ALL=C.UTF-8 GOCACHE="$cache" GOMODCACHE="$modules" \
	GOPROXY=off GOTOOLCHAIN=local GOFLAGS=-buildvcs=false \
	chroot "$work/root" make -s --no-print-directory -C "$source" BIN="$out" plugin

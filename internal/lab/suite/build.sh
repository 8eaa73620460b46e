#!/bin/sh
# Makes the root of a Debian suite with Slurm and what the lab runs beside it, once.
# build.sh SUITE ROOT: nothing is done when ROOT is there; until it is complete it has another name.
# Run it in a mount namespace and a PID namespace of its own.
set -eu
suite=$1 root=$2 new=$2.new

[ ! -e "$root" ] || exit 0
rm -rf --one-file-system "$new"
mkdir -p "$new"

# An older debootstrap knows no suite that came after it; they are all laid like sid.
scripts=$(mktemp -d)
trap 'rm -rf "$scripts"' EXIT
cp -a /usr/share/debootstrap/. "$scripts"
[ -e "$scripts/scripts/$suite" ] || ln -s sid "$scripts/scripts/$suite"

# The mirror is the one that this machine's apt uses for Debian; debootstrap has a default.
# shellcheck disable=SC2016 # apt's own variable
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Component: main' 'Identifier: Packages' 2>/dev/null |
	sed -n 's,/debian/*$,/debian,p' | head -n 1)

echo "debootstrap of $suite"
# shellcheck disable=SC2086 # no mirror is no argument
DEBOOTSTRAP_DIR=$scripts debootstrap --variant=minbase --include=ca-certificates "$suite" "$new" $mirror

# Nothing starts on installation, and this apt believes of mirrors what this machine's does.
printf '#!/bin/sh\nexit 101\n' >"$new/usr/sbin/policy-rc.d"
chmod 0755 "$new/usr/sbin/policy-rc.d"
apt-config dump | grep -E '^Acquire::(Check-|http)' >"$new/etc/apt/apt.conf.d/90lab" || true
cp -L /etc/resolv.conf /etc/hosts "$new/etc/"

mount --bind "$new" "$new"
mount -t proc proc "$new/proc"
mount -t sysfs sysfs "$new/sys"
mount --rbind /dev "$new/dev"
inside() {
	env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
		chroot "$new" "$@"
}
install() { inside apt-get install -q -y --no-install-recommends "$@"; }

echo "installation of Slurm for $suite"
inside apt-get update -q
install slurmctld slurmd slurm-client slurmdbd slurmrestd slurm-wlm-basic-plugins slurm-wlm-mysql-plugin \
	libslurm-dev munge mariadb-server mariadb-client nftables fuse3 wireguard-tools iproute2 netbase uidmap \
	util-linux e2fsprogs procps iperf3 openvpn strace gcc libc6-dev make jq openssl
# Later releases have their JWT plugin in a package of its own.
inside apt-cache show slurm-wlm-jwt-plugin >/dev/null 2>&1 && install slurm-wlm-jwt-plugin
# Where Debian's Slurm is built without PMIx, MPI programs start by PMI-2, which MPICH speaks.
if ls "$new"/usr/lib/*/slurm-wlm/mpi_pmix.so >/dev/null 2>&1; then
	install openmpi-bin libopenmpi-dev
else
	install mpich libmpich-dev
fi
inside apt-get clean
rm -rf "$new"/var/lib/apt/lists/* "$new"/var/cache/apt/*.bin

# The root holds no other file system when it is renamed.
umount -R "$new/dev"
umount "$new/sys" "$new/proc"
umount "$new"
mv "$new" "$root"

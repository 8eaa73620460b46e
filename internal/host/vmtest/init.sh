#!/bin/busybox sh
# shellcheck shell=dash
# The first process of a test machine: mounts what a node has, loads what the machine is made of,
# and hands over to the agent. What WireGuard and nftables need is loaded by the kernel's own asking.
/bin/busybox --install -s /bin
# busybox's shell takes its own ip before the one of PATH, and that one flushes all routes when it is asked for
# some of them. Tests and scripts get a shell that looks for programs where it is told to.
ln -sf dash /bin/sh
export PATH=/sbin:/bin
chmod 755 / # of a tmpfs that anybody may write to
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/shm /dev/pts /dev/net
mknod /dev/net/tun c 10 200
ln -s /proc/self/fd /dev/fd
mount -t tmpfs -o mode=1777 tmp /dev/shm
mount -t devpts -o ptmxmode=0666 pts /dev/pts
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs -o mode=755 run /run
mount -t tmpfs -o mode=1777 tmp /tmp
chmod 1777 /var/log # of daemons of any user
modprobe -a virtio_pci virtio_console virtio_net virtio_rng virtio_blk
/sbin/ip link set lo up
# The kernel gives what it does not know to us as variables (bootparam(7)).
echo "${machine:-vm}" >/proc/sys/kernel/hostname
# The port appears a moment after its driver.
n=0
while [ ! -e /dev/vport1p1 ] && [ ! -e /dev/vport0p1 ] && [ $n -lt 200 ]; do
	n=$((n + 1))
	usleep 50000
done
ulimit -n 1048576 # as systemd gives its services
for port in /dev/vport*p1; do
	/agent vm-agent <>"$port" >&0
done
poweroff -f

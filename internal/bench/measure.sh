#!/bin/sh
# One run of `enclave bench net` on two nodes. Lines that begin with "@" are for the program that
# reads this; the rest is what the measuring programs print.
# The assignments above it are network, seconds and program.
# shellcheck disable=SC2016 # the nodes' shells expand these, not this one
# shellcheck disable=SC2154
set -u
PATH=$PATH:/usr/sbin:/sbin
export PATH

# What a node is: runs match only where these are the same.
facts='
n=$SLURMD_NODENAME
say() { printf "@fact %s %s %s\n" "$n" "$1" "$2"; }
say kernel "$(uname -r)"
say cpus "$(getconf _NPROCESSORS_ONLN)"
say model "$(sed -n "s/^model name[^:]*: *//p" /proc/cpuinfo | head -n 1)"
say governor "$(cat /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor 2>/dev/null || echo none)"
say load "$(cut -d " " -f 1 /proc/loadavg)"
[ ! -e /dev/sev-guest ] || say sev guest
for device in $(sed -n "s/^ *\(enc[0-9]*\):.*/\1/p" /proc/net/dev); do
	case $(ip -d -o link show dev "$device") in
	*" wireguard "*) say tunnel kernel ;;
	*" tun "*) say tunnel userspace ;;
	*) say tunnel unknown ;;
	esac
done
[ -n "$(command -v iperf3)" ] || say missing iperf3
sleep 1
printf "@busy %s before %s\n" "$n" "$(sed -n "s/^cpu  *//p" /proc/stat)"
sleep 1
printf "@busy %s after %s\n" "$n" "$(sed -n "s/^cpu  *//p" /proc/stat)"
'

# The processor time of the processes that hold this run's tunnel, in ticks.
ticks='
printf "@hertz %s\n" "$(getconf CLK_TCK)"
for process in /proc/[0-9]*; do
	read -r name 2>/dev/null <"$process/comm" || continue
	case $name in
	"$2") printf "@ticks %s %s %s\n" "$SLURMD_NODENAME" "$1" "$(cat "$process/stat")" ;;
	esac
done
'

# A TCP stream, server and client in one step. The server's first words are told, for when it did not come up. It serves more
# than one client: one that failed half way would else have used it up.
stream='
if [ "$SLURMD_NODENAME" = "$1" ]; then
	iperf3 --server --port "$3" --forceflush 2>&1 | sed -u -n "1,3s/^/@server /p"
	exit
fi
# The server may not listen yet. With --json iperf3 ends with status 0 when it could not connect.
tries=0
while
	result=$(iperf3 --client "$2" --port "$3" --time "$4" --omit 1 --json) || :
	printf "%s" "$result" | grep -q "\"error\":" && [ "$tries" -lt 100 ]
do
	tries=$((tries + 1))
	sleep 0.2
done
printf "%s\n" "$result"
'

step() { srun --overlap "$@"; }

step --nodes=2 --ntasks=2 sh -c "$facts"
peer=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 2p)
second=$peer
holder=enclave-keeper
if [ -n "$network" ]; then
	holder=openvpn
	# "show to" finds the address of the second node in this network, whatever the device is called.
	second=$(step --nodes=1 --ntasks=1 --nodelist="$peer" ip -o address show to "$network" | sed -n 's/.* inet6* \([^ /]*\).*/\1/p' | head -n 1)
	[ -n "$second" ] || echo "@fact $peer missing $network"
fi

if [ -n "$program" ]; then
	echo "@begin mpi"
	step --nodes=2 --ntasks=2 "$program"
	echo "@end mpi $?"
fi

if [ -n "$(command -v iperf3)" ]; then
	said=$(mktemp)
	port=$((20000 + SLURM_JOB_ID % 10000))
	step --nodes=2 --ntasks=2 sh -c "$ticks" ticks before "$holder"
	echo "@begin iperf3"
	# srun ends the server a second after the client.
	step --nodes=2 --ntasks=2 --wait=1 sh -c "$stream" stream "$peer" "$second" "$port" "$seconds" 2>"$said"
	echo "@end iperf3"
	sed 's/^/@server /' "$said"
	rm -f "$said"
	step --nodes=2 --ntasks=2 sh -c "$ticks" ticks after "$holder"
fi
echo "@complete"

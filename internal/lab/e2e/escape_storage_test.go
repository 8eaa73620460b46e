//go:build e2e

package e2e_test

import (
	"strings"
	"testing"
)

// The site's secrets: each readable by everybody by its mode, so that only the view protects it.
const (
	siteRoot   = "/srv/enclave-fs/lab"
	secret     = otherTree + "/loot"
	homeSecret = "/home/bob/loot"
)

// TestEscapeStorage makes the attempts at other tenants' data of reference "escape attempts" and
// some more. P3.
func TestEscapeStorage(t *testing.T) {
	idle(t)
	copySelf(t, "n1", escapeProgram)
	must(t, "n1", "root", "chmod", "755", escapeProgram)
	must(t, "n1", "root", "sh", "-c", "echo LOOT-OF-BOB >"+secret+"; chmod 755 "+otherTree+"; chmod 644 "+secret+
		"; echo LOOT-AT-HOME >"+homeSecret+"; chmod 755 /home/bob; chmod 644 "+homeSecret)
	t.Cleanup(func() {
		on(t, "n1", "root", "rm", "-rf", secret, homeSecret, tenantTree+mailbox, tenantTree+"/planted")
		on(t, "n1", "root", "chmod", "770", otherTree)
		on(t, "n1", "root", "chmod", "700", "/home/bob")
	})
	must(t, "n1", "root", "sh", "-c", plant)
	p := imprison(t)
	judge(t, "storage", p, storageAttempts(t, p))
}

func storageAttempts(t *testing.T, p prison) []attempt {
	t.Helper()
	handle := strings.TrimSpace(must(t, "n1", "root", "env", escapeIn+"=handle", escapeProgram, secret))
	device := strings.TrimSpace(must(t, "n1", "root", "findmnt", "-n", "-o", "SOURCE", siteRoot))
	shut := opened(p, "the root-only folder opened", "chmod 755 /srv/enclave-fs", "chmod 700 /srv/enclave-fs")
	open := escapeIn + "=open " + escapeProgram
	return []attempt{
		{name: "the other tenant's tree by its path", try: "ls " + otherTree + "; cat " + secret, control: shut},
		{name: "dots out of the subtree", control: shut, try: "cat /lustre/../astro/loot /lustre/./../proj/astro/loot " + tenantTree + "/../astro/loot"},
		{
			name: "a symlink of the tenant's own to the other tree", control: shut,
			try: "ln -sfn " + otherTree + " /lustre/.escape/way; cat /lustre/.escape/way/loot",
		},
		{
			name: "every mount that mountinfo names", control: shut,
			try: `cut -d' ' -f5 /proc/self/mountinfo | while read p; do cat "$p/loot" "$p/astro/loot" "$p/proj/astro/loot" 2>&1; done | grep LOOT || echo none opens`,
		},
		{
			name: "root and working directory of every process", control: shut,
			try: `for q in /proc/[0-9]*; do cat $q/root` + secret + ` $q/cwd/astro/loot $q/cwd/loot; done 2>/dev/null || echo none opens`,
		},
		{name: "directories left open in the batch step", control: inherited(p), try: openDirectories},
		{
			name: "directories left open in a step", control: inherited(p), try: openDirectories,
			in: func(t *testing.T, s string) string { return p.run(t, "srun --overlap sh -c '"+s+"'") },
		},
		{
			name: "directories left open in a step from outside", control: inherited(p), try: openDirectories,
			in: func(t *testing.T, s string) string {
				return on(t, "login", "alice", "srun", "--jobid="+p.job, "--overlap", "sh", "-c", s).String()
			},
		},
		{name: "open_by_handle_at through the subtree", try: open + " /lustre " + handle, control: asRoot()},
		{name: "open_by_handle_at as root of a user namespace", try: "unshare -Urm env " + open + " /lustre " + handle, control: inMounts()},
		{
			name: "unmount the view in a user namespace", control: inMounts(),
			try: `unshare -Urm sh -c "umount -l /lustre || umount /lustre" && echo LOOT`,
		},
		{
			name: "unmount what covers the homes", control: inMounts(),
			try: `unshare -Urm sh -c "umount -l /home/alice; umount -l /home; cat ` + homeSecret + `"`,
		},
		{
			name: "bind / elsewhere to look beneath the covers", control: inMounts(),
			try: `unshare -Urm sh -c "mount --bind / /mnt; cat /mnt/home/beneath"`,
		},
		{
			name: "bind all of / and open the hidden folder there", control: inMounts(),
			try: `unshare -Urm sh -c "mount --rbind / /mnt; cat /mnt` + secret + ` /mnt` + homeSecret + `; mount --move /home /srv; cat ` + homeSecret + `"`,
		},
		{
			name: "remount the view with suid and dev", control: inMounts(),
			try: `unshare -Urm mount -o remount,bind,suid,dev /lustre && echo LOOT`,
		},
		{
			name: "pivot into a root of one's own", control: inMounts(),
			try: `unshare -Urm sh -c "mount --bind /mnt /mnt; mkdir -p /tmp/r; mount -t tmpfs x /tmp/r; mkdir /tmp/r/o; cd /tmp/r; perl -e 'syscall(155, \$x=q(.), \$y=q(o))'; read x </o` + secret + `; echo \$x"`,
		},
		{name: "enter the mounts of process 1", try: "nsenter -t 1 -m true && echo LOOT", control: asRoot()},
		{
			name: "chroot to the root of process 1", control: inMounts(),
			try: "unshare -Urm /usr/sbin/chroot /proc/1/root cat " + secret + "; unshare -Urm /usr/sbin/chroot /proc/1/cwd cat " + secret,
		},
		{
			name: "a hard link of the other tenant's file", control: asRoot(),
			try: "ln " + secret + " " + tenantTree + "/.escape/l && cat " + tenantTree + "/.escape/l; rm -f " + tenantTree + "/.escape/l",
		},
		{name: "the block device itself", try: "head -c 1024 " + device + " | wc -c | grep -qx 1024 && echo LOOT", control: asRoot()},
		{
			name: "mount the block device again", control: inMounts(),
			try: "unshare -Urm mount " + device + " /mnt && echo LOOT",
		},
		{name: "setuid program planted in the subtree", in: adopted, control: planted(p), try: plantedSetuid},
		{name: "device node planted in the subtree", in: adopted, control: planted(p), try: "head -c 1 /lustre/planted/zero | wc -c | grep -qx 1 && echo LOOT"},
		{
			name: "a file of the step's output in the other tree", control: shut,
			try: "srun --overlap --output=" + otherTree + "/../astro/loot --open-mode=append true; srun --overlap --input=" + secret + " cat",
		},
		{
			name: "srun --chdir into the other tree", control: shut,
			try: "srun --overlap --chdir=" + otherTree + " cat loot",
		},
	}
}

// openDirectories tries each descriptor that the shell inherited.
const openDirectories = `for f in /proc/$$/fd/*; do cat $f/astro/loot $f/proj/astro/loot $f/lab/proj/astro/loot; done 2>/dev/null || echo none leads there`

const plantedSetuid = `test "$(/lustre/planted/id -u)" = 0 && echo LOOT`

// inherited is a control: a process of the job's that was handed a descriptor by root.
func inherited(prison) proof {
	return proof{"handed a descriptor by root", func(t *testing.T, a attempt) string {
		t.Helper()
		return on(t, "n1", "root", "sh", "-c", "exec 9<"+siteRoot+"; exec setpriv --reuid=2001 --regid=2001 --clear-groups sh -c '"+a.try+"'").String()
	}}
}

// inMounts is a control: root does it in a mount namespace, without a user namespace.
func inMounts() proof {
	return proof{"by root, without a user namespace", func(t *testing.T, a attempt) string {
		t.Helper()
		script := strings.ReplaceAll(a.try, "unshare -Urm", "unshare -m")
		return onWithInput(t, "n1", "root", script+"\n", "timeout", "20", "sh").String()
	}}
}

// plant puts into the subtree what the file system's admin, or a client without nosuid, could: a
// setuid program and a device. Beneath the cover of the homes lies a file of the node's own.
const plant = "mkdir -p " + tenantTree + "/planted && cd " + tenantTree + "/planted && cp /usr/bin/id id && chmod 4755 id && mknod -m 666 zero c 1 5" +
	` && unshare -m sh -c "mount --bind / /mnt && echo LOOT-BENEATH >/mnt/home/beneath && chmod 644 /mnt/home/beneath"`

// planted is a control: the view is remounted to allow them.
func planted(p prison) proof {
	return opened(p, "the view remounted with suid and dev", "mount -o remount,bind,suid,dev /lustre", "mount -o remount,bind,nosuid,nodev /lustre")
}

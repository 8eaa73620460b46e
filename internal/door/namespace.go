package door

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/gate"
	"github.com/slurm-enclave/slurm-enclave/internal/host/file"
	"github.com/slurm-enclave/slurm-enclave/internal/host/mount"
	"github.com/slurm-enclave/slurm-enclave/internal/host/namespace"
	"github.com/slurm-enclave/slurm-enclave/internal/host/survey"
	"github.com/slurm-enclave/slurm-enclave/internal/subtree"
)

// planFile, in the directory of the job's journal, is the view that is to be made in the job's
// namespace once Slurm has made that.
const planFile = "view"

// namespaceUp prepares the view of a job whose namespace Slurm makes after the prolog. It is
// made once in a namespace that ends at once, so that a fault of tenant, node or site is found, and
// charged, before anybody says GO; and the gate is told to open in the job's namespace alone.
func (n *node) namespaceUp(ctx context.Context, plan subtree.Plan) error {
	if r := (survey.Configuration{}).Container(os.Getenv("SLURM_CONF"), n.config.Slurm.Plugstack, ViewPath, n.name); r != nil {
		return r
	}
	if err := subtreeRoom().Ready(ctx, plan); err != nil {
		return err
	}
	out, err := namespace.Rehearse(ctx, ViewPath, []string{insideWord}, []byte(plan.Detail()))
	if n.assurance, err = heardInside(out, err); err != nil {
		return err
	}
	if err = (file.Trust{}).Replace(filepath.Join(n.directory(), planFile), []byte(plan.Detail())); err != nil {
		return nodeError("E249", "check space and permissions of "+RunDir, "%s", err)
	}
	return n.gate.WriteView(gate.View{Job: n.job.Job, Boot: n.boot})
}

// heardInside reads what the program inside said, which counts before how it ended.
func heardInside(out []byte, err error) (string, error) {
	var said inside
	if parse := json.Unmarshal(out, &said); parse != nil {
		return "", nodeError(subtree.CodeMake, "see "+LogFile, "make the view in a namespace: %s", errors.Join(err, parse))
	}
	if said.Refusal != nil {
		return "", said.Refusal
	}
	if err != nil {
		return "", nodeError(subtree.CodeMake, "see "+LogFile, "make the view in a namespace: %s", err)
	}
	return said.Assurance, nil
}

// unplan deletes what a view was to be, also where isolation has been changed meanwhile.
func (n *node) unplan() error {
	err := os.Remove(filepath.Join(n.directory(), planFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// namespaceDown ends the job's namespace where Slurm has not, and makes durable what was written
// in it. A process that is still inside has been looked for already.
func (n *node) namespaceDown(ctx context.Context, plan subtree.Plan) error {
	return errors.Join(n.unpin(ctx), subtreeRoom().Flush(ctx, plan))
}

const (
	pinPatience = 5 * time.Second // for Slurm to end the namespace itself
	pinPause    = 50 * time.Millisecond
)

// unpin waits for Slurm to let go of the job's namespace, and then takes the pin away. A
// namespace that only a file keeps has no process by which it could be found.
func (n *node) unpin(ctx context.Context) error {
	for end := time.Now().Add(pinPatience); ; {
		pins, err := n.pins(ctx)
		if err != nil || len(pins) == 0 {
			return err
		}
		if time.Now().After(end) {
			var errs []error
			for _, p := range pins {
				errs = append(errs, mount.Host{}.Unmount(ctx, p))
			}
			if err = errors.Join(errs...); err != nil {
				return nodeError(subtree.CodePinned, "unmount it, or reboot", "the job's namespace is still there: %s", err)
			}
			n.log.WithField("pins", strings.Join(pins, " ")).Warn("Slurm had left the job's namespace")
			continue
		}
		t := time.NewTimer(pinPause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nodeError(subtree.CodePinned, "unmount it, or reboot", "the job's namespace is still there: %s", strings.Join(pins, " "))
		}
	}
}

// pins are the files that keep mount namespaces of the job: .ns in its directory under any BasePath.
func (n *node) pins(ctx context.Context) ([]string, error) {
	mounts, err := mount.Host{}.Mounts(ctx)
	if err != nil {
		return nil, err
	}
	var pins []string
	for _, m := range mounts {
		if m.FSType == "nsfs" && strings.HasPrefix(m.Root, "mnt:[") && strings.HasSuffix(m.Point, fmt.Sprintf("/%d/.ns", n.job.Job)) {
			pins = append(pins, m.Point)
		}
	}
	return pins, nil
}

// inside is the answer of the program that makes a view.
type inside struct {
	Assurance string           `json:"assurance,omitempty"`
	Refusal   *enclave.Refusal `json:"refusal,omitempty"`
}

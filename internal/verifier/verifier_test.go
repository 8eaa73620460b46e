package verifier_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/claim"
	"github.com/slurm-enclave/slurm-enclave/internal/config"
	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/ledger"
	"github.com/slurm-enclave/slurm-enclave/internal/roster"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/pki"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/verifiertest"
)

// world is a verifier with everything around it. Its nodes n1..n9 are enrolled.
type world struct {
	t         *testing.T
	v         *verifier.Verifier
	site      *verifiertest.Site
	appraiser *verifiertest.Appraiser
	settings  verifier.Settings
	path      string
	nodes     map[string]*verifiertest.Node
	mu        sync.Mutex
	alarms    []enclave.Code
}

type oneTenant struct{}

func (oneTenant) Lookup(account, _ string) (enclave.Tenant, error) {
	if account != "onc" {
		return enclave.Tenant{}, enclave.Refuse("E110", enclave.FaultRequest, "no tenant")
	}
	return enclave.Tenant{Name: "oncology", Subtree: "proj/oncology"}, nil
}

func inventory() config.Inventory {
	var i config.Inventory
	for n := 1; n <= 9; n++ {
		a := netip.AddrFrom4([4]byte{10, 0, 0, byte(n)})
		i.Nodes = append(i.Nodes, enclave.Node{Name: fmt.Sprintf("n%d", n), Addresses: []netip.Addr{a}, Tunnel: a})
	}
	return i
}

func newWorld(t *testing.T) *world {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	w := &world{t: t, site: &verifiertest.Site{}, appraiser: &verifiertest.Appraiser{}, nodes: map[string]*verifiertest.Node{}, path: t.TempDir()}
	c := config.Default()
	c.Cluster, c.Controller.State = "c1", w.path
	authority, err := pki.New(key)
	require.NoError(t, err)
	w.settings = verifier.Settings{
		Config: c, Inventory: inventory(), Key: key, Receipts: verifier.ReceiptKeys{Real: verifiertest.ReceiptKey(false), Simulated: verifiertest.ReceiptKey(true)}, Site: w.site, Tenants: oneTenant{}, Appraiser: w.appraiser, Authority: authority,
		Alarm: func(a ledger.Alarm) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.alarms = append(w.alarms, a.Code)
		},
	}
	w.open()
	for _, n := range w.settings.Inventory.Nodes {
		w.nodes[n.Name], err = verifiertest.NewNode(n.Name, n.Tunnel, w.v.Public())
		require.NoError(t, err)
		w.enrol(n.Name)
	}
	return w
}

func (w *world) open() {
	w.t.Helper()
	var err error
	w.settings.Ledger, err = ledger.Open(w.t.Context(), filepath.Join(w.path, "ledger.db"))
	require.NoError(w.t, err)
	w.v, err = verifier.New(w.t.Context(), w.settings)
	require.NoError(w.t, err)
}

func (w *world) close() {
	w.t.Helper()
	w.v.Close()
	require.NoError(w.t, w.settings.Ledger.Close())
}

// restart is enclaved ending and starting again on the same files.
func (w *world) restart() {
	w.t.Helper()
	w.close()
	w.open()
}

func (w *world) enrol(node string) {
	w.t.Helper()
	der, err := w.settings.Authority.Node(node, w.nodes[node].Signing.Public().(ed25519.PublicKey))
	require.NoError(w.t, err)
	require.NoError(w.t, w.settings.Ledger.Enrol(w.t.Context(), ledger.Enrolment{
		Node: node, Chip: verifiertest.ChipOf(node), Fingerprint: sha256.Sum256(der), Certificate: der, At: time.Now(),
	}))
}

// certificate is the node's, as it is enrolled.
func (w *world) certificate(node string) []byte {
	w.t.Helper()
	e, err := w.settings.Ledger.Enrolled(w.t.Context(), node)
	require.NoError(w.t, err)
	return e.Certificate
}

func job(id uint32, nodes ...string) enclave.Job {
	return enclave.Job{
		JobKey: enclave.JobKey{Cluster: "c1", Job: id}, UID: 2001, GID: 2001, User: "alice", Account: "onc", Partition: "cpu-sev", Nodes: nodes,
	}
}

func (w *world) register(j enclave.Job) enclave.JobKey {
	w.t.Helper()
	if j.Restart == 0 {
		w.site.Submit(j.Job)
	} else {
		w.site.Restart(j.JobKey)
	}
	_, err := w.v.Register(w.t.Context(), api.RegisterRequest{Job: j})
	require.NoError(w.t, err)
	return j.JobKey
}

func (w *world) nonce(k enclave.JobKey, node string) api.NonceAnswer {
	w.t.Helper()
	a, err := w.v.Nonce(w.t.Context(), node, api.NonceRequest{Job: k, Node: node, Purpose: claim.PurposeJob})
	require.NoError(w.t, err)
	return a
}

func (w *world) announce(k enclave.JobKey, node string) api.Announcement {
	w.t.Helper()
	a, err := w.nodes[node].Announce(k, claim.PurposeJob, w.nonce(k, node))
	require.NoError(w.t, err)
	return a
}

// evidence is a node's way through barrier 1 and its own checks.
func (w *world) evidence(ctx context.Context, k enclave.JobKey, node string) error {
	n := w.nodes[node]
	nonce, err := w.v.Nonce(ctx, node, api.NonceRequest{Job: k, Node: node, Purpose: claim.PurposeJob})
	if err != nil {
		return err
	}
	a, err := n.Announce(k, claim.PurposeJob, nonce)
	if err != nil {
		return err
	}
	answer, err := w.v.PostEvidence(ctx, node, a)
	if err != nil {
		return err
	}
	if _, _, err = answer.Accept(n.Expect(k, nonce.Nonce)); err != nil {
		return err
	}
	return nil
}

// bringUp is a node's way through both barriers.
func (w *world) bringUp(ctx context.Context, k enclave.JobKey, node string) error {
	if err := w.evidence(ctx, k, node); err != nil {
		return err
	}
	_, err := w.v.PostReady(ctx, node, api.ReadyRequest{NodeRequest: api.NodeRequest{Job: k, Node: node, Epoch: 1}, PhasesMS: map[string]int64{"mesh": 5}})
	return err
}

func (w *world) broken(ctx context.Context, k enclave.JobKey, node string, code enclave.Code, fault enclave.Fault) error {
	r := enclave.Refusal{Code: code, Fault: fault, Reason: "the node says so", Check: string(code)}
	a, err := w.v.Broken(ctx, node, api.BrokenRequest{NodeRequest: api.NodeRequest{Job: k, Node: node, Epoch: 1}, Refusal: r})
	if err != nil {
		return err
	}
	return &a.Refusal
}

// together runs the nodes at the same time and prints what each was told: "go", or code and fault.
func together(run map[string]func() error) map[string]string {
	out, mu, group := map[string]string{}, sync.Mutex{}, sync.WaitGroup{}
	for node, f := range run {
		group.Go(func() {
			err := f()
			mu.Lock()
			defer mu.Unlock()
			out[node] = told(err)
		})
	}
	group.Wait()
	return out
}

func told(err error) string {
	if err == nil {
		return "go"
	}
	if r, ok := enclave.AsRefusal(err); ok {
		return string(r.Code) + " " + string(r.Fault)
	}
	return err.Error()
}

func (w *world) all(k enclave.JobKey, nodes ...string) map[string]string {
	run := map[string]func() error{}
	for _, n := range nodes {
		run[n] = func() error { return w.bringUp(w.t.Context(), k, n) }
	}
	return together(run)
}

// leaves are all peers of a job as a node gets them.
func (w *world) leaves(node string, r api.NodeRequest) ([]enclave.Peer, error) {
	b, err := w.v.Leaves(w.t.Context(), node, r)
	if err != nil {
		return nil, err
	}
	return roster.Unpack(b)
}

func (w *world) entry(k enclave.JobKey) ledger.Entry {
	w.t.Helper()
	e, err := w.settings.Ledger.Entry(w.t.Context(), k)
	require.NoError(w.t, err)
	return e
}

func (w *world) goFile(k enclave.JobKey) bool {
	_, err := os.Stat(filepath.Join(w.path, "go", k.Directory()))
	return err == nil
}

// bubble runs a test on a clock that stands still until everybody waits.
func bubble(t *testing.T, name string, f func(*testing.T, *world)) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			defer w.close()
			f(t, w)
		})
	})
}

func TestBarriers(t *testing.T) {
	t.Parallel()
	bubble(t, "three good nodes are let in together", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1", "n2", "n3"))
		assert.Equal(t, map[string]string{"n1": "go", "n2": "go", "n3": "go"}, w.all(k, "n1", "n2", "n3"))
		synctest.Wait()
		e := w.entry(k)
		assert.Equal(t, enclave.VerdictSimulated, e.Verdict, "fake evidence is never protected")
		assert.NotNil(t, e.Started)
		assert.NotEmpty(t, e.Header)
		assert.True(t, w.goFile(k))
		assert.Empty(t, w.site.String())
		assert.Contains(t, w.site.Verdict(k), `"verdict":"simulated"`)
		leaves, err := w.leaves("n2", api.NodeRequest{Job: k, Node: "n2", Epoch: 1})
		require.NoError(t, err)
		assert.Len(t, leaves, 3)
		s, err := w.v.Settled(t.Context(), k)
		require.NoError(t, err)
		assert.True(t, s.Go)
		assert.False(t, s.Requeued)
	})
	bubble(t, "one wrong node refuses all, and is drained before anybody is answered", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1", "n2", "n3"))
		w.nodes["n2"].Fail = "measurement"
		assert.Equal(t, map[string]string{"n1": "E501 service", "n2": "E229 node", "n3": "E501 service"}, w.all(k, "n1", "n2", "n3"))
		assert.Equal(t, "n2 drained enclave:E229 check measurement: as the test wants it (see enclave why n2)\n", w.site.String())
		assert.Equal(t, []string{"drain n2", "record 7.0"}, w.site.Calls())
		assert.False(t, w.goFile(k))
		w.site.SetJob(7, enclave.JobState{State: "FAILED", Batch: true})
		s, err := w.v.Settled(t.Context(), k)
		require.NoError(t, err)
		assert.True(t, s.Requeued)
		assert.Equal(t, enclave.VerdictRefused, s.Verdict)
	})
	bubble(t, "a node that took a nonce and went silent is at fault at the deadline", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1", "n2"))
		w.nonce(k, "n2")
		begin := time.Now()
		assert.Equal(t, map[string]string{"n1": "E501 service"}, w.all(k, "n1"))
		assert.Equal(t, 60*time.Second, time.Since(begin))
		assert.Equal(t, []string{"n2"}, w.site.Drained())
		assert.Contains(t, w.site.String(), "enclave:E221")
	})
	bubble(t, "a deadline that passed while enclaved stood still is no node's fault", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1", "n2"))
		w.nonce(k, "n2")
		w.site.SetSlow(70 * time.Second)
		assert.Equal(t, map[string]string{"n1": "E541 service"}, w.all(k, "n1"))
		assert.Empty(t, w.site.Drained())
		w.site.SetJob(7, enclave.JobState{State: "FAILED", Batch: true})
		s, err := w.v.Settled(t.Context(), k)
		require.NoError(t, err)
		assert.True(t, s.Requeued)
	})
	bubble(t, "a job whose nodes waited no longer goes back, one that was cancelled does not", func(t *testing.T, w *world) {
		for id, c := range map[uint32]struct{ state, told string }{7: {"FAILED", "E542 service"}, 8: {"CANCELLED", "E503 request"}} {
			for _, settled := range []bool{false, true} {
				k := w.register(job(id+10*map[bool]uint32{true: 1}[settled], "n1", "n2"))
				waits := make(chan error, 1)
				go func() { waits <- w.bringUp(t.Context(), k, "n1") }()
				synctest.Wait()
				w.site.SetJob(k.Job, enclave.JobState{State: c.state, Batch: true})
				if !settled { // Slurm is asked while the barrier is open
					assert.Equal(t, c.told, told(<-waits))
				}
				s, err := w.v.Settled(t.Context(), k)
				require.NoError(t, err)
				if settled {
					assert.Equal(t, c.told, told(<-waits))
				}
				assert.Equal(t, c.state == "FAILED", s.Requeued)
			}
		}
		assert.Empty(t, w.site.Drained())
	})
	bubble(t, "a node that never spoke is nobody's fault, and an alarm at the third time", func(t *testing.T, w *world) {
		for i := range uint32(4) {
			k := w.register(job(7+i, "n1", "n2"))
			assert.Equal(t, map[string]string{"n1": "E510 service"}, w.all(k, "n1"))
			synctest.Wait()
		}
		assert.Empty(t, w.site.Drained())
		assert.Equal(t, []enclave.Code{"E512"}, w.alarms)
	})
	bubble(t, "a broken node releases the barrier when the others had a second to say the same", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1", "n2", "n3"))
		begin := time.Now()
		got := together(map[string]func() error{
			"n1": func() error { return w.bringUp(t.Context(), k, "n1") },
			"n2": func() error {
				<-time.After(time.Second)
				return w.broken(t.Context(), k, "n2", "E210", enclave.FaultNode)
			},
		})
		assert.Equal(t, map[string]string{"n1": "E501 service", "n2": "E210 node"}, got)
		assert.Equal(t, 2*time.Second, time.Since(begin))
		assert.Equal(t, []string{"n2"}, w.site.Drained(), "n3, which had no time to speak, is not drained")
	})
	bubble(t, "what breaks all nodes within that second drains none of them", func(t *testing.T, w *world) {
		for id, before := range map[uint32]func(k enclave.JobKey, node string) error{
			7: func(enclave.JobKey, string) error { return nil },
			8: func(k enclave.JobKey, node string) error { return w.evidence(t.Context(), k, node) },
		} {
			k := w.register(job(id, "n1", "n2"))
			run := map[string]func() error{}
			for i, node := range []string{"n1", "n2"} {
				run[node] = func() error {
					if err := before(k, node); err != nil {
						return err
					}
					<-time.After(time.Duration(i) * 700 * time.Millisecond)
					return w.broken(t.Context(), k, node, "E211", enclave.FaultNode)
				}
			}
			begin := time.Now()
			assert.Equal(t, map[string]string{"n1": "E530 policy", "n2": "E530 policy"}, together(run))
			assert.Equal(t, 700*time.Millisecond, time.Since(begin), "and nobody is waited for in vain")
		}
		assert.Empty(t, w.site.Drained())
	})
	bubble(t, "a node that is broken before it took a nonce opens and ends the barrier", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1", "n2"))
		assert.Equal(t, "E210 node", told(w.broken(t.Context(), k, "n1", "E210", enclave.FaultNode)))
		_, err := w.v.Nonce(t.Context(), "n2", api.NonceRequest{Job: k, Node: "n2", Purpose: claim.PurposeJob})
		assert.Equal(t, "E501 service", told(err))
	})
	bubble(t, "a node that waits for its neighbours hears what was decided", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1", "n2"))
		w.site.Submit(7)
		decision := func(node string) error {
			if err := w.evidence(t.Context(), k, node); err != nil {
				return err
			}
			return w.v.Decision(t.Context(), node, api.NodeRequest{Job: k, Node: node, Epoch: 1})
		}
		got := together(map[string]func() error{
			"n1": func() error { return decision("n1") },
			"n2": func() error { return w.evidence(t.Context(), k, "n2") },
			"kill": func() error {
				<-time.After(3 * time.Second)
				w.site.SetJob(7, enclave.JobState{State: "COMPLETING", Batch: true})
				return nil
			},
		})
		assert.Equal(t, map[string]string{"n1": "E503 request", "n2": "go", "kill": "go"}, got)
		assert.Equal(t, "E128 service", told(w.v.Decision(t.Context(), "n2", api.NodeRequest{Job: k, Node: "n1"})), "nobody hears for another")
		k = w.register(job(8, "n1"))
		assert.Equal(t, map[string]string{"n1": "go", "ready": "go"}, together(map[string]func() error{
			"n1": func() error { return decision("n1") },
			"ready": func() error {
				<-time.After(time.Second)
				_, err := w.v.PostReady(t.Context(), "n1", api.ReadyRequest{NodeRequest: api.NodeRequest{Job: k, Node: "n1", Epoch: 1}})
				return err
			},
		}))
	})
	bubble(t, "a node breaking behind barrier 1 ends barrier 2", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1", "n2"))
		got := together(map[string]func() error{
			"n1": func() error { return w.bringUp(t.Context(), k, "n1") },
			"n2": func() error {
				if err := w.evidence(t.Context(), k, "n2"); err != nil {
					return err
				}
				return w.broken(t.Context(), k, "n2", "E401", enclave.FaultNode)
			},
		})
		assert.Equal(t, map[string]string{"n1": "E501 service", "n2": "E401 node"}, got)
		assert.False(t, w.goFile(k))
		assert.Equal(t, []string{"n2"}, w.site.Drained())
	})
	bubble(t, "a fault that is not the node's drains nobody", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1", "n2"))
		got := together(map[string]func() error{
			"n1": func() error { return w.bringUp(t.Context(), k, "n1") },
			"n2": func() error { return w.broken(t.Context(), k, "n2", "E305", enclave.FaultPolicy) },
		})
		assert.Equal(t, map[string]string{"n1": "E305 service", "n2": "E305 service"}, got, "a node can't blame the policy")
		assert.Empty(t, w.site.Drained())
	})
	bubble(t, "a node that is not ready by the deadline drains nobody", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1", "n2"))
		got := together(map[string]func() error{
			"n1": func() error { return w.bringUp(t.Context(), k, "n1") },
			"n2": func() error { return w.evidence(t.Context(), k, "n2") },
		})
		assert.Equal(t, map[string]string{"n1": "E504 service", "n2": "go"}, got)
		assert.Empty(t, w.site.Drained())
	})
	bubble(t, "a job that died in Slurm releases the barrier within a poll", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1", "n2"))
		w.nonce(k, "n2")
		begin := time.Now()
		got := together(map[string]func() error{
			"n1": func() error { return w.bringUp(t.Context(), k, "n1") },
			"the user": func() error {
				<-time.After(3 * time.Second)
				w.site.SetJob(7, enclave.JobState{State: "CANCELLED"})
				return nil
			},
		})
		assert.Equal(t, "E503 request", got["n1"])
		assert.Equal(t, 4*time.Second, time.Since(begin))
		assert.Empty(t, w.site.Drained(), "n2 was cut off, not silent")
		s, err := w.v.Settled(t.Context(), k)
		require.NoError(t, err)
		assert.False(t, s.Requeued, "what the user cancelled must not come back")
	})
	bubble(t, "a job that died drains nobody, whatever its nodes had said by then", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1", "n2"))
		w.nodes["n1"].Fail = "debug"
		got := together(map[string]func() error{
			"n1": func() error { return w.bringUp(t.Context(), k, "n1") },
			"the user": func() error {
				<-time.After(time.Second)
				w.site.SetJob(7, enclave.JobState{State: "CANCELLED"})
				return nil
			},
		})
		assert.Equal(t, "E503 request", got["n1"])
		assert.Empty(t, w.site.Drained())
	})
	bubble(t, "a Slurm that is away is no dead job", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1", "n2"))
		got := together(map[string]func() error{
			"n1": func() error { return w.bringUp(t.Context(), k, "n1") },
			"n2": func() error {
				w.site.SetAway(true)
				<-time.After(10 * time.Second)
				w.site.SetAway(false)
				return w.bringUp(t.Context(), k, "n2")
			},
		})
		assert.Equal(t, map[string]string{"n1": "go", "n2": "go"}, got)
	})
	bubble(t, "a drain that Slurm does not take is an alarm, and the node is told all the same", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1", "n2"))
		w.site.SetAway(true)
		w.nodes["n2"].Fail = "tcb_minimum"
		assert.Equal(t, map[string]string{"n1": "E501 service", "n2": "E235 node"}, w.all(k, "n1", "n2"))
		assert.Contains(t, w.alarms, enclave.Code("E511"))
	})
	bubble(t, "one weak node makes the job weak", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1", "n2"))
		w.nodes["n2"].Weak = true
		w.all(k, "n1", "n2")
		synctest.Wait()
		assert.True(t, w.entry(k).Weak)
	})
	bubble(t, "a job of one node passes alone", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1"))
		assert.Equal(t, map[string]string{"n1": "go"}, w.all(k, "n1"))
	})
	bubble(t, "stopping refuses what is open and blames nobody", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1", "n2"))
		w.nonce(k, "n2")
		got := together(map[string]func() error{
			"n1":      func() error { return w.bringUp(t.Context(), k, "n1") },
			"systemd": func() error { <-time.After(time.Second); w.v.Close(); return nil },
		})
		assert.Equal(t, "E509 service", got["n1"])
		assert.Empty(t, w.site.Drained())
		_, err := w.v.Nonce(t.Context(), "n1", api.NonceRequest{Job: k, Node: "n1", Purpose: claim.PurposeJob})
		require.Error(t, err)
	})
}

func TestRestartOfTheVerifier(t *testing.T) {
	t.Parallel()
	bubble(t, "between the barriers: the job is unknown, refused as service, and requeued", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1", "n2"))
		together(map[string]func() error{
			"n1": func() error { return w.evidence(t.Context(), k, "n1") },
			"n2": func() error { return w.evidence(t.Context(), k, "n2") },
		})
		w.restart()
		_, err := w.v.PostReady(t.Context(), "n1", api.ReadyRequest{NodeRequest: api.NodeRequest{Job: k, Node: "n1", Epoch: 1}})
		assert.Equal(t, "E502 service", told(err))
		_, err = w.v.Register(t.Context(), api.RegisterRequest{Job: job(7, "n1", "n2")})
		assert.Equal(t, "E502 service", told(err), "the same start can't begin again: nodes hold its roster")
		w.site.SetJob(7, enclave.JobState{State: "FAILED", Batch: true})
		s, err := w.v.Settled(t.Context(), k)
		require.NoError(t, err)
		assert.False(t, s.Go)
		assert.True(t, s.Requeued)
		assert.Empty(t, w.site.Drained())
	})
	bubble(t, "while a job runs: teardown is taken, and settled as let in", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1"))
		w.all(k, "n1")
		w.restart()
		require.NoError(t, w.v.TeardownReport(t.Context(), "n1", api.TeardownRequest{NodeRequest: api.NodeRequest{Job: k, Node: "n1", Epoch: 1}, Closed: true, Network: api.Network{TunnelBytes: 9}}))
		s, err := w.v.Settled(t.Context(), k)
		require.NoError(t, err)
		assert.True(t, s.Go)
		r, err := w.v.Report(t.Context(), verifier.Viewer{UID: 2001}, 7, nil)
		require.NoError(t, err)
		assert.Equal(t, uint64(9), r.Network.TunnelBytes)
		assert.Equal(t, int64(5), r.TimelineMS["mesh"])
		assert.True(t, *r.Nodes[0].Closed)
		assert.Equal(t, "not yet", r.Receipt)
		assert.NotNil(t, r.Ended)
	})
}

func TestRequeueing(t *testing.T) {
	t.Parallel()
	bubble(t, "a job that is refused again and again is given up after three restarts", func(t *testing.T, w *world) {
		for restart := range uint32(4) {
			j := job(7, "n1")
			j.Restart = restart
			w.site.Submit(7)
			k := w.register(j)
			require.Error(t, w.broken(t.Context(), k, "n1", "E305", enclave.FaultService))
			w.site.SetJob(7, enclave.JobState{State: "FAILED", Batch: true})
			s, err := w.v.Settled(t.Context(), k)
			require.NoError(t, err)
			assert.Equal(t, restart < 3, s.Requeued, "start %d", restart)
			if restart == 3 {
				assert.Equal(t, enclave.Code("E505"), s.Refusal.Code)
			}
		}
	})
	bubble(t, "a start that no node ever spoke of is requeued, and counted", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1"))
		w.site.SetJob(7, enclave.JobState{State: "FAILED", Batch: true})
		s, err := w.v.Settled(t.Context(), k)
		require.NoError(t, err)
		assert.True(t, s.Requeued)
		assert.Equal(t, enclave.Code("E516"), w.entry(k).Refusal.Code)
		again, err := w.v.Settled(t.Context(), k)
		require.NoError(t, err)
		assert.False(t, again.Requeued, "a second call requeues nothing")
	})
	bubble(t, "a start that was never registered is requeued", func(t *testing.T, w *world) {
		w.site.SetJob(9, enclave.JobState{State: "FAILED", Batch: true})
		s, err := w.v.Settled(t.Context(), enclave.JobKey{Cluster: "c1", Job: 9})
		require.NoError(t, err)
		assert.True(t, s.Requeued)
	})
	bubble(t, "a start that Slurm has put back itself is settled by the next one's count, once", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1"))
		w.site.SetJob(7, enclave.JobState{State: "PENDING", Batch: true})
		next := k
		next.Restart++
		s, err := w.v.Settled(t.Context(), next)
		require.NoError(t, err)
		assert.True(t, s.Requeued)
		assert.NotNil(t, w.entry(k).Ended)
		assert.Empty(t, w.site.Calls(), "and Slurm is not asked to do it again")
		_, err = w.v.Settled(t.Context(), next)
		require.NoError(t, err)
		assert.Equal(t, []string{"requeue 7.1"}, w.site.Calls(), "a second word is of a start that nobody registered")
	})
	bubble(t, "a request's fault is not", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1"))
		require.Error(t, w.broken(t.Context(), k, "n1", "E302", enclave.FaultRequest))
		w.site.SetJob(7, enclave.JobState{State: "FAILED", Batch: true})
		s, err := w.v.Settled(t.Context(), k)
		require.NoError(t, err)
		assert.False(t, s.Requeued)
	})
	bubble(t, "settling while a barrier is open releases it", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1", "n2"))
		got := together(map[string]func() error{
			"n1": func() error { return w.bringUp(t.Context(), k, "n1") },
			"epilog": func() error {
				<-time.After(time.Second)
				_, err := w.v.Settled(t.Context(), k)
				return err
			},
		})
		assert.Equal(t, map[string]string{"n1": "E503 request", "epilog": "go"}, got)
	})
}

func TestRegistration(t *testing.T) {
	t.Parallel()
	bubble(t, "twice the same is one, another content is refused", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1", "n2"))
		w.register(job(7, "n1", "n2"))
		_, err := w.v.Register(t.Context(), api.RegisterRequest{Job: job(7, "n1", "n3")})
		assert.Equal(t, "E121 service", told(err))
		assert.Equal(t, []string{"n1", "n2"}, w.entry(k).Job.Nodes)
		assert.Equal(t, "login1", w.entry(k).Job.SubmitHost, "Slurm knows what the environment does not say")
	})
	bubble(t, "what has no enclave is refused", func(t *testing.T, w *world) {
		for want, change := range map[string]func(*enclave.Job){
			"E120 request": func(j *enclave.Job) { j.Cluster = "c2" },
			"E123 service": func(j *enclave.Job) { j.Nodes = []string{"n1", "x9"} },
		} {
			j := job(8, "n1")
			change(&j)
			_, err := w.v.Register(t.Context(), api.RegisterRequest{Job: j})
			assert.Equal(t, want, told(err))
		}
		for _, change := range []func(*enclave.Job){
			func(j *enclave.Job) { j.Job = 0 }, func(j *enclave.Job) { j.Partition = "cpu" },
			func(j *enclave.Job) { j.Nodes = nil }, func(j *enclave.Job) { j.Nodes = []string{"n1", "n1"} },
		} {
			j := job(8, "n1")
			change(&j)
			_, err := w.v.Register(t.Context(), api.RegisterRequest{Job: j})
			assert.Equal(t, "E120 request", told(err))
		}
		_, err := w.v.Report(t.Context(), verifier.Viewer{Operator: true}, 8, nil)
		assert.Equal(t, "E135 request", told(err), "nothing was stored")
	})
	bubble(t, "what the user may not have is refused, and the nodes are told why", func(t *testing.T, w *world) {
		w.v.Config.Network.Interactive = "deny"
		w.site.SetJob(10, enclave.JobState{Alive: true, State: "RUNNING", AllocNode: "login1"})
		for id, c := range map[uint32]struct {
			want   string
			change func(*enclave.Job)
			het    uint32
		}{
			8:  {"E122 request", func(j *enclave.Job) { j.UID = 0 }, 0},
			9:  {"E110 request", func(j *enclave.Job) { j.Account = "other" }, 0},
			10: {"E141 request", func(*enclave.Job) {}, 0},
			11: {"E105 request", func(*enclave.Job) {}, 11},
			12: {"E105 request", func(*enclave.Job) {}, 11},
		} {
			j := job(id, "n1")
			c.change(&j)
			_, err := w.v.Register(t.Context(), api.RegisterRequest{Job: j, HetJob: c.het})
			assert.Equal(t, c.want, told(err))
			_, err = w.v.Nonce(t.Context(), "n1", api.NonceRequest{Job: j.JobKey, Node: "n1", Purpose: claim.PurposeJob})
			assert.Equal(t, c.want, told(err))
			_, err = w.v.Nonce(t.Context(), "n3", api.NonceRequest{Job: j.JobKey, Node: "n3", Purpose: claim.PurposeJob})
			assert.Equal(t, "E502 service", told(err), "another node learns nothing")
			r, err := w.v.Report(t.Context(), verifier.Viewer{Operator: true}, id, nil)
			require.NoError(t, err)
			assert.Equal(t, enclave.VerdictRefused, r.Verdict)
		}
	})
}

func TestPeopleSeeTheirOwn(t *testing.T) {
	t.Parallel()
	bubble(t, "report, list and fleet", func(t *testing.T, w *world) {
		k := w.register(job(7, "n1", "n2"))
		w.nodes["n2"].Fail = "debug"
		w.all(k, "n1", "n2")
		alice, bob, root := verifier.Viewer{UID: 2001}, verifier.Viewer{UID: 2002}, verifier.Viewer{Operator: true}
		r, err := w.v.Report(t.Context(), alice, 7, nil)
		require.NoError(t, err)
		assert.Equal(t, enclave.VerdictRefused, r.Verdict)
		assert.Equal(t, enclave.StatusContraindicated, r.Nodes[1].Result)
		for _, n := range r.Nodes {
			assert.NotEmpty(t, n.Checks, "%s: enclaved keeps none in memory, the ledger has them", n.Name)
		}
		assert.Equal(t, enclave.Code("E231"), r.Nodes[1].Refusal.Code)
		assert.NotEmpty(t, r.NotCovered)
		_, err = w.v.Report(t.Context(), bob, 7, nil)
		assert.Equal(t, "E135 request", told(err))
		_, missing := w.v.Report(t.Context(), bob, 8, nil)
		assert.Equal(t, strings.Replace(missing.Error(), "8", "7", 1), err.Error(), "another's job looks like none")
		list, err := w.v.List(t.Context(), bob)
		require.NoError(t, err)
		assert.Empty(t, list.Jobs)
		list, err = w.v.List(t.Context(), root)
		require.NoError(t, err)
		assert.Equal(t, enclave.Code("E231"), list.Jobs[0].Code)
		fleet, err := w.v.Fleet(t.Context(), root)
		require.NoError(t, err)
		assert.True(t, fleet.Nodes[1].Drained)
		assert.Equal(t, "E231", string(fleet.Nodes[1].Refusal.Code))
		fleet, err = w.v.Fleet(t.Context(), bob)
		require.NoError(t, err)
		assert.Empty(t, fleet.Nodes[1].ChipID)
		assert.Empty(t, fleet.Nodes[1].ReportID)
		assert.Nil(t, fleet.Nodes[1].Refusal)
	})
}

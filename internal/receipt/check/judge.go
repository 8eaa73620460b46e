package check

import (
	"crypto/x509"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/receipt"
	"github.com/slurm-enclave/slurm-enclave/internal/snp"
)

// maxMemo is how many signatures above reports are remembered in one check.
const maxMemo = 1 << 16

// judgement is what AMD's keys say of one report; err: a document of it is missing or broken.
type judgement struct {
	result snp.Result
	err    error
}

// judge verifies all reports on as many processors as there are: they are most of a check's work, and
// none of them needs another.
func (c *checking) judge() {
	var all []*receipt.Evidence
	for i := range c.said.Nodes {
		for k := range c.said.Nodes[i].Evidence {
			all = append(all, &c.said.Nodes[i].Evidence[k])
		}
	}
	out := make([]judgement, len(all))
	opt := snp.Options{Roots: c.roots, Memo: snp.NewMemo(maxMemo)}
	known := &lists{c: c, known: map[enclave.Digest]list{}}
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(len(all), runtime.GOMAXPROCS(0)) {
		workers.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(all); i = int(next.Add(1)) - 1 {
				out[i] = c.judgeOne(all[i], opt, known)
			}
		})
	}
	workers.Wait()
	c.judged = make(map[*receipt.Evidence]judgement, len(all))
	for i, e := range all {
		c.judged[e] = out[i]
	}
}

// judgeOne only reads what is shared.
func (c *checking) judgeOne(e *receipt.Evidence, opt snp.Options, known *lists) judgement {
	chain, crls, err := c.endorsements(e, known)
	if err != nil {
		return judgement{err: err}
	}
	opt.At, opt.CRLs = e.At, crls
	return judgement{result: snp.Verify(e.Report, chain, opt)}
}

// lists are the receipt's revocation lists, each parsed once.
type lists struct {
	c     *checking
	mu    sync.Mutex
	known map[enclave.Digest]list
}

type list struct {
	parsed *x509.RevocationList
	err    error
}

func (l *lists) of(d enclave.Digest) (*x509.RevocationList, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k, ok := l.known[d]
	if !ok {
		var der []byte
		if der, k.err = l.c.document(d); k.err == nil {
			k.parsed, k.err = snp.ParseCRL(der)
		}
		l.known[d] = k
	}
	return k.parsed, k.err
}

// endorsements finds certificates and lists in the receipt, as they were that day.
func (c *checking) endorsements(e *receipt.Evidence, lists *lists) (snp.Chain, []*x509.RevocationList, error) {
	b := e.Unparsed
	if len(e.Certificates) != 0 {
		var err error
		if b, err = c.bundle(e.Certificates...); err != nil {
			return snp.Chain{}, nil, err
		}
	}
	chain, _ := c.roots.ParseCertificates(b) // Verify says what is wrong with them
	var crls []*x509.RevocationList
	for _, d := range e.CRLs {
		l, err := lists.of(d)
		if err != nil {
			return chain, nil, err
		}
		crls = append(crls, l)
	}
	return chain, crls, nil
}

package ledger

// migrations are the steps from an empty file to today's schema. A step that was released is
// never changed: a new one is appended. Times are Unix milliseconds.
func migrations() []string {
	return []string{`
CREATE TABLE jobs (
  cluster TEXT NOT NULL, job INTEGER NOT NULL, restart INTEGER NOT NULL,
  uid INTEGER NOT NULL, account TEXT NOT NULL,
  body TEXT NOT NULL,                -- the job, its tenant and policy, as registered
  registered INTEGER NOT NULL, started INTEGER, ended INTEGER,
  verdict TEXT NOT NULL, weak INTEGER NOT NULL DEFAULT 0, refusal TEXT,
  header BLOB, signature BLOB,       -- the signed roster
  PRIMARY KEY (cluster, job, restart)
) STRICT;
CREATE INDEX jobs_by_time ON jobs (registered);
CREATE TABLE members (               -- one node of one start of a job
  cluster TEXT NOT NULL, job INTEGER NOT NULL, restart INTEGER NOT NULL, node TEXT NOT NULL,
  keys TEXT, result TEXT, refusal TEXT, ready TEXT, teardown TEXT, at INTEGER NOT NULL,
  PRIMARY KEY (cluster, job, restart, node),
  FOREIGN KEY (cluster, job, restart) REFERENCES jobs ON DELETE CASCADE
) STRICT;
CREATE INDEX members_by_node ON members (node, at);
CREATE TABLE evidence (
  id INTEGER PRIMARY KEY, cluster TEXT NOT NULL, job INTEGER NOT NULL, restart INTEGER NOT NULL,
  node TEXT NOT NULL, purpose INTEGER NOT NULL, epoch INTEGER NOT NULL, nonce TEXT NOT NULL UNIQUE,
  report BLOB NOT NULL, certificates BLOB NOT NULL, provider TEXT NOT NULL,
  keys TEXT NOT NULL, result TEXT NOT NULL, at INTEGER NOT NULL
) STRICT;
CREATE INDEX evidence_by_job ON evidence (cluster, job, restart, node);
CREATE TABLE enrolments (
  id INTEGER PRIMARY KEY, node TEXT NOT NULL, chip TEXT NOT NULL, fingerprint TEXT NOT NULL UNIQUE,
  certificate BLOB NOT NULL, by INTEGER NOT NULL, at INTEGER NOT NULL,
  revoked INTEGER, revoked_by INTEGER, why TEXT
) STRICT;
CREATE UNIQUE INDEX enrolments_in_force ON enrolments (node) WHERE revoked IS NULL;
CREATE TABLE failures (              -- the storm window
  id INTEGER PRIMARY KEY, name TEXT NOT NULL, code TEXT NOT NULL, node TEXT NOT NULL,
  at INTEGER NOT NULL, drained INTEGER NOT NULL, resumed INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX failures_by_name ON failures (name, at);
CREATE TABLE alarms (id INTEGER PRIMARY KEY, code TEXT NOT NULL, reason TEXT NOT NULL, at INTEGER NOT NULL) STRICT;
CREATE TABLE silences (node TEXT PRIMARY KEY, times INTEGER NOT NULL) STRICT;
CREATE TABLE errands (
  id INTEGER PRIMARY KEY, kind TEXT NOT NULL, body BLOB NOT NULL, attempts INTEGER NOT NULL DEFAULT 0,
  due INTEGER NOT NULL, cause TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX errands_by_time ON errands (due, id);
`, `
CREATE TABLE rosters (               -- every epoch of a start, with its leaves
  cluster TEXT NOT NULL, job INTEGER NOT NULL, restart INTEGER NOT NULL, epoch INTEGER NOT NULL,
  header BLOB NOT NULL, signature BLOB NOT NULL, peers TEXT NOT NULL,
  gone TEXT NOT NULL DEFAULT '', refusal TEXT, at INTEGER NOT NULL,
  PRIMARY KEY (cluster, job, restart, epoch),
  FOREIGN KEY (cluster, job, restart) REFERENCES jobs ON DELETE CASCADE
) STRICT;
CREATE TABLE renewals (              -- one short row each; evidence keeps the first, the last and the failed ones whole
  id INTEGER PRIMARY KEY, cluster TEXT NOT NULL, job INTEGER NOT NULL, restart INTEGER NOT NULL, node TEXT NOT NULL,
  epoch INTEGER NOT NULL, nonce TEXT NOT NULL UNIQUE, digest TEXT NOT NULL, good INTEGER NOT NULL, at INTEGER NOT NULL
) STRICT;
CREATE INDEX renewals_by_job ON renewals (cluster, job, restart, node, id);
CREATE INDEX jobs_running ON jobs (cluster) WHERE started IS NOT NULL AND ended IS NULL AND refusal IS NULL;
`, `
ALTER TABLE enrolments ADD COLUMN report_id TEXT NOT NULL DEFAULT ''; -- where the chip is masked
CREATE TABLE policies (              -- the texts under which jobs were started
  digest TEXT PRIMARY KEY, name TEXT NOT NULL, text TEXT NOT NULL, at INTEGER NOT NULL
) STRICT;
CREATE INDEX evidence_by_node ON evidence (node, id);
`, `
CREATE TABLE documents (             -- certificates and revocation lists: what evidence was judged by
  digest TEXT PRIMARY KEY, body BLOB NOT NULL
) STRICT;
ALTER TABLE evidence ADD COLUMN endorsements TEXT;
CREATE TABLE receipts (              -- append only; jobs.sealed stays when a row is taken away by force
  cluster TEXT NOT NULL, seq INTEGER NOT NULL, job INTEGER NOT NULL, restart INTEGER NOT NULL,
  digest TEXT NOT NULL, previous TEXT NOT NULL, envelope BLOB NOT NULL, at INTEGER NOT NULL,
  PRIMARY KEY (cluster, seq), UNIQUE (cluster, job, restart)
) STRICT;
CREATE TRIGGER receipts_never_change BEFORE UPDATE ON receipts BEGIN SELECT RAISE(ABORT, 'receipts never change'); END;
CREATE TRIGGER receipts_never_go BEFORE DELETE ON receipts BEGIN SELECT RAISE(ABORT, 'receipts never go'); END;
ALTER TABLE jobs ADD COLUMN sealed INTEGER;
CREATE INDEX jobs_unsealed ON jobs (cluster, ended) WHERE sealed IS NULL;
`, `
DROP INDEX jobs_running;             -- one that was refused runs until Slurm has ended it
CREATE INDEX jobs_running ON jobs (cluster) WHERE started IS NOT NULL AND ended IS NULL;
`, `
ALTER TABLE evidence ADD COLUMN delivered TEXT; -- digest of the document that is its certificates; NULL: they are in the row
`, `
DELETE FROM documents WHERE digest NOT IN (
  SELECT delivered FROM evidence WHERE delivered IS NOT NULL
  UNION SELECT value FROM evidence, json_each(endorsements, '$.certificates')
  UNION SELECT value FROM evidence, json_each(endorsements, '$.authorities')
  UNION SELECT value FROM evidence, json_each(endorsements, '$.crls')
);                                   -- renewals whose row has gone left them; delivered may be 'judged' from here on
`, `
ALTER TABLE evidence ADD COLUMN machine TEXT; -- as what the node was enrolled when it was judged; NULL: of an earlier release
ALTER TABLE evidence ADD COLUMN unjudged INTEGER NOT NULL DEFAULT 0; -- this host could not judge it
`, `
ALTER TABLE members ADD COLUMN nonce TEXT; -- of the evidence that has this node's keys and result, where they are not in the row
ALTER TABLE members ADD COLUMN affirmed INTEGER; -- NULL: nothing was judged, or an earlier release wrote the row, and result says
`}
}

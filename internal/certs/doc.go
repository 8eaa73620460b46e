// Package certs keeps AMD's certificates and revocation lists on disk: where they lie, which are
// missing for the chips of a site, which end soon, and how AMD's key distribution service (KDS,
// publication 57230) or a mirror of it is asked for them, one at a time.
//
// It judges no certificate: what comes back is shown to a Judge before it is stored. It runs when
// an admin says so and never while a job waits; nothing that appraises evidence asks the network.
package certs

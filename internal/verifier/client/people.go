package client

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"github.com/slurm-enclave/slurm-enclave/internal/enclave"
	"github.com/slurm-enclave/slurm-enclave/internal/verifier/api"
)

// Report asks for one start of a job, the latest when restart is nil.
func (c *Client) Report(ctx context.Context, job uint32, restart *uint32) (api.Report, error) {
	path := fmt.Sprintf("%s?job=%d", api.PathReport, job)
	if restart != nil {
		path += fmt.Sprintf("&restart=%d", *restart)
	}
	return ask[api.Report](ctx, c, path)
}

// Jobs asks for the jobs that the caller may see.
func (c *Client) Jobs(ctx context.Context) (api.Jobs, error) {
	return ask[api.Jobs](ctx, c, api.PathJobs)
}

// Me asks whom the caller is taken for.
func (c *Client) Me(ctx context.Context) (api.Me, error) { return ask[api.Me](ctx, c, api.PathMe) }

// Shares asks for the next page of what the ledger has of jobs; after is a time in Unix milliseconds, then
// what the last page says.
func (c *Client) Shares(ctx context.Context, after string) (api.Shares, error) {
	return ask[api.Shares](ctx, c, api.PathShares+"?"+url.Values{"after": {after}}.Encode())
}

// Nodes asks for the fleet.
func (c *Client) Nodes(ctx context.Context) (api.Nodes, error) {
	return ask[api.Nodes](ctx, c, api.PathNodes)
}

// LatestEvidence asks for the last evidence of a node; operators only.
func (c *Client) LatestEvidence(ctx context.Context, node string) (api.NodeEvidence, error) {
	return ask[api.NodeEvidence](ctx, c, api.PathLatest+"?"+url.Values{"node": {node}}.Encode())
}

// Receipt asks for the receipt of one start of a job, the latest when restart is nil.
func (c *Client) Receipt(ctx context.Context, job uint32, restart *uint32) (api.Receipt, error) {
	path := fmt.Sprintf("%s?job=%d", api.PathReceipt, job)
	if restart != nil {
		path += fmt.Sprintf("&restart=%d", *restart)
	}
	return ask[api.Receipt](ctx, c, path)
}

// Receipts asks for the next part of the cluster's chain, as an operator.
func (c *Client) Receipts(ctx context.Context, from uint64) (api.Receipts, error) {
	return ask[api.Receipts](ctx, c, fmt.Sprintf("%s?from=%d", api.PathReceipts, from))
}

// ReceiptKeys asks for the public keys of receipts.
func (c *Client) ReceiptKeys(ctx context.Context) (api.ReceiptKeys, error) {
	return ask[api.ReceiptKeys](ctx, c, api.PathReceiptKeys)
}

// ask sends a question with a credential that is good for it alone.
func ask[A any](ctx context.Context, c *Client, path string) (A, error) {
	var none A
	if c.opt.Credential == nil {
		return none, enclave.Refuse("E133", enclave.FaultRequest, "this call needs a munge credential")
	}
	credential, err := c.opt.Credential(ctx, api.Question(http.MethodGet, path))
	if err != nil {
		return none, enclave.Refuse("E519", enclave.FaultService, "%v", err)
	}
	return call[A](ctx, c, request{method: http.MethodGet, path: path, form: api.TypeJSON, authorization: "Munge " + credential})
}

// EnrolNonce begins an enrolment, as a stranger.
func (c *Client) EnrolNonce(ctx context.Context, node string) (api.EnrolNonceAnswer, error) {
	return post[api.EnrolNonceAnswer](ctx, c, api.PathEnrolNonce, api.EnrolNonceRequest{Node: node})
}

// EnrolRequest puts the node's wish before the admin.
func (c *Client) EnrolRequest(ctx context.Context, r api.EnrolRequest) (api.EnrolTicket, error) {
	return post[api.EnrolTicket](ctx, c, api.PathEnrolRequest, r)
}

// EnrolStatus asks whether the admin has answered.
func (c *Client) EnrolStatus(ctx context.Context, r api.EnrolStatusRequest) (api.EnrolStatus, error) {
	return post[api.EnrolStatus](ctx, c, api.PathEnrolStatus, r)
}

// PendingEnrols lists the wishes, for an admin on the controller.
func (c *Client) PendingEnrols(ctx context.Context) ([]api.PendingEnrol, error) {
	out, err := post[api.PendingEnrols](ctx, c, api.PathEnrolPending, api.Empty{})
	return out.Pending, err
}

// EnrolApprove is the admin's yes.
func (c *Client) EnrolApprove(ctx context.Context, r api.ApproveRequest) error {
	_, err := post[api.EnrolStatus](ctx, c, api.PathEnrolApprove, r)
	return err
}

// Revoke takes a node's certificate out of use and ends the jobs that it is in.
func (c *Client) Revoke(ctx context.Context, r api.RevokeRequest) (api.RevokeAnswer, error) {
	return post[api.RevokeAnswer](ctx, c, api.PathRevoke, r)
}

// Return puts a node back to work that the verifier drained.
func (c *Client) Return(ctx context.Context, node string) error {
	_, err := post[api.Empty](ctx, c, api.PathReturn, api.ReturnRequest{Node: node})
	return err
}

// Chips lists the processors of the enrolled nodes, for an admin on the controller.
func (c *Client) Chips(ctx context.Context) (api.Chips, error) {
	return post[api.Chips](ctx, c, api.PathChips, api.Empty{})
}

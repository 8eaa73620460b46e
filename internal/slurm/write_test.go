package slurm_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/slurm-enclave/slurm-enclave/internal/slurm"
)

func TestActs(t *testing.T) {
	t.Parallel()
	evil := `enclave={"v":"refused","t":"it's; $(reboot) ` + "`x`" + `, State=RESUME"}` + "\nline"
	for _, c := range []struct {
		name string
		act  func(context.Context, *slurm.CLI) error
		want string
		asks []string // first which element of an array the job is: the question, and the answer
	}{
		{"drain", func(ctx context.Context, c *slurm.CLI) error {
			return c.Drain(ctx, "k1", "enclave:E220 report, \"x\"\nState=RESUME \x1b[1m")
		}, `scontrol ["update" "NodeName=k1" "State=DRAIN" "Reason=enclave:E220 report, \"x\"?State=RESUME ?[1m"]`, nil},
		{"resume", func(ctx context.Context, c *slurm.CLI) error { return c.Resume(ctx, "k1") }, `scontrol ["update" "NodeName=k1" "State=RESUME"]`, nil},
		{"requeue", func(ctx context.Context, c *slurm.CLI) error { return c.Requeue(ctx, 4) }, `scontrol ["requeue" "4"]`, []string{asked, single}},
		{"notify", func(ctx context.Context, c *slurm.CLI) error { return c.Notify(ctx, 4, "enclave: E102\nno -x") }, `scontrol ["notify" "4" "enclave: E102?no -x"]`, nil},
		{"cancel", func(ctx context.Context, c *slurm.CLI) error { return c.Cancel(ctx, 4) }, `scancel ["4"]`, []string{asked, single}},
		{
			"text while the job lives", func(ctx context.Context, c *slurm.CLI) error { return c.SetAdminComment(ctx, 4, evil) },
			fmt.Sprintf(`scontrol ["update" "JobId=4" %q]`, "AdminComment="+evil),
			[]string{asked, single},
		},
		{
			"text in accounting", func(ctx context.Context, c *slurm.CLI) error { return c.SetStoredComment(ctx, 4, slurm.Stored(evil)) },
			fmt.Sprintf(`sacctmgr ["-i" "-Q" "modify" "job" "where" "jobid=4" "set" %q]`, "AdminComment="+slurm.Stored(evil)),
			[]string{askedStored, "4|4\n", asked, single},
		},
	} {
		t.Run(c.name+" is one command with fixed arguments", func(t *testing.T) {
			t.Parallel()
			cli, s := said()
			want := []string{c.want}
			if c.asks != nil {
				var answers []answer
				want = nil
				for pair := range slices.Chunk(c.asks, 2) {
					want, answers = append(want, pair[0]), append(answers, answer{out: pair[1]})
				}
				cli, s = said(answers...)
				want = append(want, c.want)
			}
			require.NoError(t, c.act(t.Context(), cli))
			assert.Equal(t, want, s.asked)
		})
	}
	for _, name := range []string{"", "k1,k2", "k[1-9]", "ALL State=DOWN", "-k1", "k1\nk2", "../k1"} {
		t.Run(fmt.Sprintf("node name %q reaches no command", name), func(t *testing.T) {
			t.Parallel()
			cli, s := said()
			require.Error(t, cli.Drain(t.Context(), name, "enclave:E220 x"))
			require.Error(t, cli.Resume(t.Context(), name))
			_, err := cli.Node(t.Context(), name)
			require.Error(t, err)
			assert.Empty(t, s.asked)
		})
	}
	t.Run("a drain without a reason is refused", func(t *testing.T) {
		t.Parallel()
		cli, s := said()
		require.Error(t, cli.Drain(t.Context(), "k1", ""))
		assert.Empty(t, s.asked)
	})
	t.Run("a text that sacctmgr would spoil is not sent", func(t *testing.T) {
		t.Parallel()
		for _, text := range []string{"JS1:H4sI", `{"a":1}`, "it's", `"x"`} {
			cli, s := said()
			require.ErrorIs(t, cli.SetStoredComment(t.Context(), 4, text), slurm.ErrLossy)
			assert.Empty(t, s.asked)
		}
	})
	t.Run("a text without end or with a zero byte is not sent", func(t *testing.T) {
		t.Parallel()
		cli, s := said()
		require.Error(t, cli.SetAdminComment(t.Context(), 4, strings.Repeat("x", slurm.MaxText+1)))
		require.Error(t, cli.SetStoredComment(t.Context(), 4, "a\x00"))
		assert.Empty(t, s.asked)
	})
	t.Run("answers have names", func(t *testing.T) {
		t.Parallel()
		cli, _ := said(answer{out: "1|1|N/A|\n"}, answer{stderr: "Job has already finished for job 1"}, answer{out: "5|5|N/A|\n"}, answer{stderr: "Only batch jobs are accepted or processed for job 5"},
			answer{stderr: "slurm_update error: Invalid node name specified"}, answer{out: "5|5\n"}, answer{out: "5|5|N/A|\n"},
			answer{stderr: "sacctmgr: accounting_storage/slurmdbd: acct_storage_p_modify_job: Request didn't affect anything or your user doesn't have privilege"},
			answer{stderr: "slurm_update error: Access/permission denied"})
		require.ErrorIs(t, cli.SetAdminComment(t.Context(), 1, "x"), slurm.ErrFinished)
		require.ErrorIs(t, cli.Requeue(t.Context(), 5), slurm.ErrInteractive)
		require.ErrorIs(t, cli.Drain(t.Context(), "k9", "enclave:E220 x"), slurm.ErrNoNode)
		require.ErrorIs(t, cli.SetStoredComment(t.Context(), 5, "x"), slurm.ErrNoJob)
		require.ErrorContains(t, cli.Drain(t.Context(), "k1", "enclave:E220 x"), "permission denied")
		newest, _ := said(answer{out: "5|5\n"}, answer{out: "5|5|N/A|\n"}, answer{stderr: "Error with request: Data has not changed since time specified"})
		require.ErrorIs(t, newest.SetStoredComment(t.Context(), 5, "x"), slurm.ErrNoJob, "26.05")
	})
}

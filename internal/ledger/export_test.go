package ledger

import (
	"context"
	"fmt"
)

// SetVersion fakes a ledger that another release wrote.
func SetVersion(ctx context.Context, l *Ledger, v int) error {
	_, err := l.db.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", v))
	return err
}

package tunnel

import (
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/tun"
)

// OpenStandard is Open with either side of wireguard-go's own, which ours are compared with.
func OpenStandard(name string, mtu int, standardBind, standardCard bool) (*Device, error) {
	var (
		t   tun.Device
		err error
		b   conn.Bind = newBind()
	)
	if standardBind {
		b = conn.NewDefaultBind()
	}
	if standardCard {
		t, err = tun.CreateTUN(name, mtu)
	} else {
		t, err = openCard(name, mtu)
	}
	if err != nil {
		return nil, err
	}
	return control(name, t, b)
}

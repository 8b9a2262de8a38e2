// Package programs keeps the programs of Cilium that the tests run, and what they are made of, in go.mod.
package programs

import (
	_ "github.com/cilium/cilium/cilium-dbg/cmd"
	_ "github.com/cilium/cilium/daemon/cmd"
	_ "github.com/cilium/cilium/operator/cmd"
	_ "github.com/cilium/cilium/plugins/cilium-cni/cmd"
)

// Package upgrade keeps the version of cilium-agent to which the tests upgrade, and what it is made of, in go.mod.
package upgrade

import _ "github.com/cilium/cilium/daemon/cmd"

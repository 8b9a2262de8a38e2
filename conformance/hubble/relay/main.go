// Command relay is the stock hubble-relay.
package main

import (
	"fmt"
	"os"

	"github.com/cilium/cilium/hubble-relay/cmd"
)

func main() {
	if err := cmd.New().Execute(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

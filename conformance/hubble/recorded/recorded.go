// Package recorded reads flow logs: lines of JSON, each a flow.
package recorded

import (
	"bufio"
	"fmt"
	"os"

	"google.golang.org/protobuf/encoding/protojson"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	observerpb "github.com/cilium/cilium/api/v1/observer"
)

// Each shows every flow of a log, in order.
func Each(path string, see func(*flowpb.Flow) error) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		var response observerpb.GetFlowsResponse
		if err := protojson.Unmarshal(lines.Bytes(), &response); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if err := see(response.GetFlow()); err != nil {
			return err
		}
	}
	return lines.Err()
}

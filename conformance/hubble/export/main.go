// Command export writes recorded flows with Cilium's own exporter: what ours is compared with.
//
// Arguments: a file of JSON lines, and a file as cilium-agent's --hubble-flowlogs-config-path.
package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"

	"google.golang.org/protobuf/encoding/protojson"

	observerpb "github.com/cilium/cilium/api/v1/observer"
	v1 "github.com/cilium/cilium/pkg/hubble/api/v1"
	"github.com/cilium/cilium/pkg/hubble/exporter"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: export FLOWS CONFIG")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "export:", err)
		os.Exit(1)
	}
}

func run(path, config string) error {
	logger := slog.New(slog.NewTextHandler(io.Discard, nil))
	text, err := os.Open(config)
	if err != nil {
		return err
	}
	defer text.Close()
	configs, err := exporter.NewExporterConfigParser(logger).Parse(text)
	if err != nil {
		return err
	}
	var exporters []exporter.FlowLogExporter
	for _, config := range configs {
		made, err := exporter.NewExporterFactory(logger).Create(config)
		if err != nil {
			return err
		}
		exporters = append(exporters, made)
	}

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
		event := &v1.Event{Timestamp: response.GetTime(), Event: response.GetFlow()}
		for _, to := range exporters {
			if err := to.Export(context.Background(), event); err != nil {
				return err
			}
		}
	}
	for _, to := range exporters {
		if err := to.Stop(); err != nil {
			return err
		}
	}
	return lines.Err()
}

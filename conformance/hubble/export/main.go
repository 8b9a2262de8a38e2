// Command export writes recorded flows with Cilium's own exporter: what ours is compared with.
//
// Arguments: a file of JSON lines, and a file as cilium-agent's --hubble-flowlogs-config-path.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	v1 "github.com/cilium/cilium/pkg/hubble/api/v1"
	"github.com/cilium/cilium/pkg/hubble/exporter"
	"meridian/conformance/hubble/recorded"
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

	err = recorded.Each(path, func(flow *flowpb.Flow) error {
		event := &v1.Event{Timestamp: flow.GetTime(), Event: flow}
		for _, to := range exporters {
			if err := to.Export(context.Background(), event); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, to := range exporters {
		if err := to.Stop(); err != nil {
			return err
		}
	}
	return nil
}

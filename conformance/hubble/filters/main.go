// Command filters says which flows Cilium's own filters let through.
//
// Arguments: a file of flow.Flow messages and a file of observer.GetFlowsRequest messages, each
// message after its length as a varint. For each request it prints a line: a digit for each flow, 1
// where whitelist and blacklist let it through, or `!` and the error of a filter that can't be.
package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	observerpb "github.com/cilium/cilium/api/v1/observer"
	v1 "github.com/cilium/cilium/pkg/hubble/api/v1"
	"github.com/cilium/cilium/pkg/hubble/filters"
	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/proto"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: filters FLOWS REQUESTS")
		os.Exit(2)
	}
	var events []*v1.Event
	each(os.Args[1], func() proto.Message { return &flowpb.Flow{} }, func(message proto.Message) {
		events = append(events, &v1.Event{Event: message})
	})
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	each(os.Args[2], func() proto.Message { return &observerpb.GetFlowsRequest{} }, func(message proto.Message) {
		request := message.(*observerpb.GetFlowsRequest)
		line, err := verdicts(request, events)
		if err != nil {
			line = []byte("!" + strconv.Quote(err.Error()))
		}
		out.Write(append(line, '\n'))
	})
}

func verdicts(request *observerpb.GetFlowsRequest, events []*v1.Event) ([]byte, error) {
	known := filters.DefaultFilters(slog.New(slog.NewTextHandler(io.Discard, nil)))
	whitelist, err := filters.BuildFilterList(context.Background(), request.GetWhitelist(), known)
	if err != nil {
		return nil, err
	}
	blacklist, err := filters.BuildFilterList(context.Background(), request.GetBlacklist(), known)
	if err != nil {
		return nil, err
	}
	line := make([]byte, 0, len(events)+1)
	for _, event := range events {
		digit := byte('0')
		if whitelist.MatchOne(event) && blacklist.MatchNone(event) {
			digit = '1'
		}
		line = append(line, digit)
	}
	return line, nil
}

// each reads the messages of a file.
func each(path string, empty func() proto.Message, see func(proto.Message)) {
	file, err := os.Open(path)
	if err != nil {
		fail(err)
	}
	defer file.Close()
	reader := bufio.NewReader(file)
	for {
		message := empty()
		err := protodelim.UnmarshalFrom(reader, message)
		if err == io.EOF {
			return
		}
		if err != nil {
			fail(fmt.Errorf("%s: %w", path, err))
		}
		see(message)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "filters:", err)
	os.Exit(1)
}

// Command traffic makes traffic of known size between the pods of a test; it is all that their images
// hold. Without arguments it waits, as the container does that holds a pod's namespaces.
//
//	traffic serve [ADDRESS:]PORT      answers over TCP and UDP
//	traffic send FLOW...              makes each flow in turn, and fails with the first that fails
//	traffic repeat INTERVAL FLOW...   the same for ever, whatever fails
//
// A flow is tcp:HOST:PORT:UP:DOWN:COUNT, connections that carry so many bytes there and back;
// udp:HOST:PORT:SIZE:COUNT, datagrams of this payload, each of which is returned; or
// sweep:HOST:PORT:SIZE:COUNT, a datagram to each of so many addresses from this one on, which nobody returns.
// An IPv6 address is a host with or without brackets.
package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// How long a connection, or a datagram's way there and back, may take.
const patience = 20 * time.Second

func main() {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-ended
		os.Exit(0)
	}()
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "traffic:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	switch {
	case len(arguments) == 0:
		return wait()
	case len(arguments) == 2 && arguments[0] == "serve":
		address := arguments[1]
		if !strings.Contains(address, ":") {
			address = ":" + address
		}
		return serve(address)
	case len(arguments) > 1 && arguments[0] == "send":
		return send(arguments[1:])
	case len(arguments) > 2 && arguments[0] == "repeat":
		interval, err := time.ParseDuration(arguments[1])
		if err != nil {
			return err
		}
		for ; ; time.Sleep(interval) {
			if err := send(arguments[2:]); err != nil {
				fmt.Fprintln(os.Stderr, "traffic:", err)
			}
		}
	}
	return errors.New("usage: traffic [serve [ADDRESS:]PORT | send FLOW... | repeat INTERVAL FLOW...]")
}

// wait reaps the processes that a pod's containers leave behind.
func wait() error {
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	for range children {
		for {
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
				break
			}
		}
	}
	return nil
}

func serve(address string) error {
	datagrams, err := net.ListenPacket("udp", address)
	if err != nil {
		return err
	}
	failed := make(chan error, 2)
	go func() {
		buffer := make([]byte, 65536)
		for {
			n, from, err := datagrams.ReadFrom(buffer)
			if err != nil {
				failed <- err
				return
			}
			_, _ = datagrams.WriteTo(buffer[:n], from)
		}
	}()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				failed <- err
				return
			}
			go answer(connection)
		}
	}()
	return <-failed
}

// answer reads how many bytes come and are wanted, the former, and writes the latter.
func answer(connection net.Conn) {
	defer connection.Close()
	var head [16]byte
	if _, err := io.ReadFull(connection, head[:]); err != nil {
		return
	}
	if _, err := io.CopyN(io.Discard, connection, int64(binary.BigEndian.Uint64(head[:8]))); err != nil {
		return
	}
	_, _ = io.CopyN(connection, zeroes{}, int64(binary.BigEndian.Uint64(head[8:])))
}

type zeroes struct{}

func (zeroes) Read(buffer []byte) (int, error) {
	clear(buffer)
	return len(buffer), nil
}

func send(flows []string) error {
	for _, flow := range flows {
		if err := sendFlow(flow); err != nil {
			return fmt.Errorf("%s: %w", flow, err)
		}
	}
	return nil
}

// How many numbers come behind the port.
var kinds = map[string]int{"tcp": 3, "udp": 2, "sweep": 2}

func sendFlow(flow string) error {
	kind, rest, _ := strings.Cut(flow, ":")
	words := strings.Split(rest, ":")
	host := len(words) - kinds[kind] - 1
	if kinds[kind] == 0 || host < 1 {
		return errors.New("none of tcp:HOST:PORT:UP:DOWN:COUNT, udp:HOST:PORT:SIZE:COUNT and sweep:HOST:PORT:SIZE:COUNT")
	}
	to := net.JoinHostPort(strings.Trim(strings.Join(words[:host], ":"), "[]"), words[host])
	var numbers [3]int
	for i, word := range words[host+1:] {
		number, err := strconv.Atoi(word)
		if err != nil {
			return err
		}
		numbers[i] = number
	}
	switch kind {
	case "tcp":
		return times(numbers[2], func() error { return connection(to, numbers[0], numbers[1]) })
	case "udp":
		return times(numbers[1], func() error { return datagram(to, numbers[0]) })
	}
	return sweep(to, numbers[0], numbers[1])
}

// sweep sends without a connection: that nobody answers is no error.
func sweep(to string, size, count int) error {
	address, err := netip.ParseAddrPort(to)
	if err != nil {
		return err
	}
	socket, err := net.ListenUDP("udp", nil)
	if err != nil {
		return err
	}
	defer socket.Close()
	for range count {
		if _, err := socket.WriteToUDPAddrPort(make([]byte, size), address); err != nil {
			return err
		}
		address = netip.AddrPortFrom(address.Addr().Next(), address.Port())
	}
	return nil
}

func times(count int, one func() error) error {
	for range count {
		if err := one(); err != nil {
			return err
		}
	}
	return nil
}

func connection(to string, up, down int) error {
	connection, err := net.DialTimeout("tcp", to, patience)
	if err != nil {
		return err
	}
	defer connection.Close()
	if err := connection.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	var head [16]byte
	binary.BigEndian.PutUint64(head[:8], uint64(up))
	binary.BigEndian.PutUint64(head[8:], uint64(down))
	if _, err := connection.Write(head[:]); err != nil {
		return err
	}
	if _, err := io.CopyN(connection, zeroes{}, int64(up)); err != nil {
		return err
	}
	got, err := io.Copy(io.Discard, connection)
	if err == nil && got != int64(down) {
		err = fmt.Errorf("%d bytes came back", got)
	}
	return err
}

func datagram(to string, size int) error {
	socket, err := net.Dial("udp", to)
	if err != nil {
		return err
	}
	defer socket.Close()
	if err := socket.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := socket.Write(make([]byte, size)); err != nil {
		return err
	}
	got, err := socket.Read(make([]byte, 65536))
	if err == nil && got != size {
		err = fmt.Errorf("%d bytes came back", got)
	}
	return err
}

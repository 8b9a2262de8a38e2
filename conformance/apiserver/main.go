// Command apiserver is a Kubernetes API server with its etcd, in one process and on loopback, for
// the tests of the controller: the real watches, authorisation and errors, without a cluster.
//
// Arguments: a folder for what must outlast it, the API server's port, and further flags of
// kube-apiserver. It writes DIR/kubeconfig, the administrator's. It ends with its stdin, and goes on
// from where it was when it is started on the same folder.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	certutil "k8s.io/client-go/util/cert"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
)

// What the administrator shows; the server listens on loopback only.
const token = "administrator"

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: apiserver DIR PORT [FLAG]...")
		os.Exit(2)
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	if err := run(os.Args[1], os.Args[2], os.Args[3:]); err != nil {
		fmt.Fprintln(os.Stderr, "apiserver:", err)
		os.Exit(1)
	}
}

func run(dir, port string, flags []string) error {
	storage, err := etcd(dir)
	if err != nil {
		return err
	}
	path := func(name string) string { return filepath.Join(dir, name) }
	if _, err := os.Stat(path("kubeconfig")); errors.Is(err, os.ErrNotExist) {
		if err := credentials(dir, port); err != nil {
			return err
		}
	}
	server := app.NewAPIServerCommand()
	server.SetArgs(append([]string{
		"--etcd-servers=" + storage,
		"--bind-address=127.0.0.1",
		"--advertise-address=127.0.0.1",
		"--secure-port=" + port,
		"--tls-cert-file=" + path("server.crt"),
		"--tls-private-key-file=" + path("server.key"),
		"--token-auth-file=" + path("tokens.csv"),
		"--authorization-mode=RBAC",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-signing-key-file=" + path("accounts.key"),
		"--service-account-key-file=" + path("accounts.key"),
		"--service-cluster-ip-range=10.96.0.0/16",
		// Pods here have no service account: nobody would run them with it.
		"--disable-admission-plugins=ServiceAccount",
	}, flags...))
	return server.Execute()
}

// etcd starts the storage on a free port and says where it is.
func etcd(dir string) (string, error) {
	config := embed.NewConfig()
	config.Dir = filepath.Join(dir, "etcd")
	config.LogLevel = "error"
	config.UnsafeNoFsync = true
	clients, err := free()
	if err != nil {
		return "", err
	}
	peers, err := free()
	if err != nil {
		return "", err
	}
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{clients}, []url.URL{clients}
	config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{peers}, []url.URL{peers}
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	server, err := embed.StartEtcd(config)
	if err != nil {
		return "", err
	}
	select {
	case <-server.Server.ReadyNotify():
		return clients.String(), nil
	case err := <-server.Err():
		return "", err
	case <-time.After(time.Minute):
		return "", errors.New("etcd did not start within a minute")
	}
}

func free() (url.URL, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return url.URL{}, err
	}
	defer listener.Close()
	return url.URL{Scheme: "http", Host: listener.Addr().String()}, nil
}

// credentials writes what server and administrator need to know each other.
func credentials(dir, port string) error {
	certificate, key, err := certutil.GenerateSelfSignedCertKey("127.0.0.1", []net.IP{net.IPv4(127, 0, 0, 1)}, nil)
	if err != nil {
		return err
	}
	accounts, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	accountsKey, err := x509.MarshalECPrivateKey(accounts)
	if err != nil {
		return err
	}
	kubeconfig := fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: test
contexts: [{name: test, context: {cluster: test, user: administrator}}]
clusters: [{name: test, cluster: {server: "https://127.0.0.1:%s", certificate-authority-data: %s}}]
users: [{name: administrator, user: {token: %s}}]
`, port, base64.StdEncoding.EncodeToString(certificate), token)
	for name, text := range map[string][]byte{
		"server.crt":   certificate,
		"server.key":   key,
		"accounts.key": pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: accountsKey}),
		"tokens.csv":   []byte(token + ",administrator,1,\"system:masters\"\n"),
		"kubeconfig":   []byte(kubeconfig),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			return err
		}
	}
	return nil
}

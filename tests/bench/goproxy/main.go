// SPDX-License-Identifier: LGPL-2.1-or-later

// A proxy as one writes it in Go: io.Copy each way, plain or over mutual TLS. One of the bench's peers.
//
//	goproxy -listen unix:PATH -connect tcp:HOST:PORT [-tls connect|listen -cert FILE -key FILE -ca FILE]
package main

import (
	"crypto/tls"
	"crypto/x509"
	"flag"
	"io"
	"log"
	"net"
	"os"
	"strings"
)

type halfCloser interface {
	net.Conn
	CloseWrite() error
}

func split(address string) (string, string) {
	kind, rest, found := strings.Cut(address, ":")
	if !found {
		log.Fatalf("%s: not unix:PATH or tcp:HOST:PORT", address)
	}
	return kind, rest
}

func config(cert, key, ca string) *tls.Config {
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		log.Fatal(err)
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		log.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		log.Fatalf("%s: no certificate", ca)
	}
	return &tls.Config{
		Certificates: []tls.Certificate{pair},
		RootCAs:      pool,
		ClientCAs:    pool,
		ClientAuth:   tls.RequireAndVerifyClientCert,
		MinVersion:   tls.VersionTLS13,
	}
}

func copyHalf(to, from halfCloser, done chan<- struct{}) {
	if _, err := io.Copy(to, from); err != nil {
		to.Close()
		from.Close()
	}
	to.CloseWrite()
	done <- struct{}{}
}

func serve(accepted net.Conn, connect string, secure *tls.Config) {
	defer accepted.Close()
	kind, address := split(connect)
	var connected net.Conn
	var err error
	if secure != nil {
		connected, err = tls.Dial(kind, address, secure)
	} else {
		connected, err = net.Dial(kind, address)
	}
	if err != nil {
		log.Print(err)
		return
	}
	defer connected.Close()
	done := make(chan struct{}, 2)
	go copyHalf(connected.(halfCloser), accepted.(halfCloser), done)
	go copyHalf(accepted.(halfCloser), connected.(halfCloser), done)
	<-done
	<-done
}

func main() {
	listen := flag.String("listen", "", "unix:PATH or tcp:HOST:PORT")
	connect := flag.String("connect", "", "unix:PATH or tcp:HOST:PORT")
	side := flag.String("tls", "", "the side that speaks TLS: listen or connect")
	cert := flag.String("cert", "", "this end's certificate")
	key := flag.String("key", "", "its key")
	ca := flag.String("ca", "", "who signed the other end's")
	flag.Parse()

	var secure *tls.Config
	if *side != "" {
		secure = config(*cert, *key, *ca)
	}
	kind, address := split(*listen)
	listener, err := net.Listen(kind, address)
	if err != nil {
		log.Fatal(err)
	}
	if *side == "listen" {
		listener = tls.NewListener(listener, secure)
		secure = nil
	}
	for {
		accepted, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go serve(accepted, *connect, secure)
	}
}

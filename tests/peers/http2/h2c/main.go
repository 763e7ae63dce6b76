// h2c ADDRESS: Go's HTTP/2 server, without TLS, with prior knowledge.
package main

import (
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
)

func main() {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	answer := func(response http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(response, "an answer")
	}
	listener, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("listening")
	server := &http.Server{Handler: http.HandlerFunc(answer), Protocols: protocols}
	log.Fatal(server.Serve(listener))
}
